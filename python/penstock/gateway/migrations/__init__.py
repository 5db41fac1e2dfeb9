"""How the database came to be as it is, one file for each step, by Alembic.

A step is never edited once it was released. It is written by hand, with the tables as they were at that time, and
tests/gateway/test_store.py compares the end with `tables.py`. A step that needs minutes on a large table holds every
node that starts for as long.
"""
