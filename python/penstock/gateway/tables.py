"""What is in the database. How it came to be so is in `migrations`.

Names begin with `penstock_`: the database may be one that others use too. Times are Unix seconds, money is in
nano-dollars, lists and objects are JSON.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    column,
)

VERSION = "0003"
"""The migration that these tables are of."""

VERSION_TABLE = "penstock_version"

metadata = MetaData()

keys = Table(
    "penstock_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("hint", Text, nullable=False),
    Column("name", Text),
    Column("models", Text, nullable=False),
    Column("rpm", BigInteger),
    Column("tpm", BigInteger),
    Column("max_parallel", BigInteger),
    Column("budget", BigInteger),
    Column("budget_period", Text),
    Column("budget_reset", Double),
    Column("spent", BigInteger, nullable=False),
    Column("expires", Double),
    Column("blocked", Boolean, nullable=False),
    Column("created", Double, nullable=False),
    Column("metadata", Text, nullable=False),
    # A key that is gone stays as a row: the other nodes must hear of it, and what it spent keeps its name.
    Column("deleted", Double),
    Column("changed", BigInteger, nullable=False),
    Index("penstock_keys_changed", "changed"),
    Index(
        "penstock_keys_name",
        "name",
        unique=True,
        sqlite_where=column("deleted").is_(None),
        postgresql_where=column("deleted").is_(None),
    ),
)

changes = Table(
    "penstock_changes",
    metadata,
    # One row. Whoever changes keys counts it up first and holds it until the commit: so changes become visible in the
    # order of their numbers, and a node that has seen number n misses none below. No clock is as good.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

requests = Table(
    "penstock_requests",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started", Double, nullable=False),
    Column("seconds", Double),
    Column("first_token", Double),
    Column("key_id", Text),
    Column("route", Text),
    Column("model_group", Text),
    Column("deployment", Text),
    Column("provider", Text),
    Column("model", Text),
    Column("stream", Boolean),
    Column("outcome", Text),
    Column("status", Integer),
    Column("error", Text),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("total_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("usage_complete", Boolean),
    Column("cost", BigInteger),
    Column("chunks", BigInteger),
    Column("attempts", Text),
    Column("end_user", Text),
    Column("trace", Text),
    Index("penstock_requests_started", "started"),
    Index("penstock_requests_key", "key_id", "started"),
)

daily = Table(
    "penstock_daily",
    metadata,
    # A day of UTC, as 2027-01-31. A part of the key cannot be null: '' is what is not known.
    Column("day", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("model_group", Text, primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("model", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
)

SUMS = ("requests", "failures", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cost")
"""The columns of `daily` that add up."""
