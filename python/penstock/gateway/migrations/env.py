"""Alembic runs this file: on the connection that `Store` gives it, within the transaction that `Store` began."""

from alembic import context

from penstock.gateway.tables import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,  # SQLite too: all steps or none
)
context.run_migrations()
