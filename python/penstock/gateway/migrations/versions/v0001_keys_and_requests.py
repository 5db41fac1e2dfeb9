"""Keys, what changed of them, and a row for each request."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "penstock_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hint", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("rpm", sa.BigInteger),
        sa.Column("tpm", sa.BigInteger),
        sa.Column("max_parallel", sa.BigInteger),
        sa.Column("budget", sa.BigInteger),
        sa.Column("budget_period", sa.Text),
        sa.Column("budget_reset", sa.Double),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("blocked", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("deleted", sa.Double),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("penstock_keys_changed", "penstock_keys", ["changed"])
    there = sa.column("deleted").is_(None)
    op.create_index(
        "penstock_keys_name", "penstock_keys", ["name"], unique=True, sqlite_where=there, postgresql_where=there
    )
    changes = op.create_table(
        "penstock_changes",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(changes, [{"id": 1, "number": 0}])
    op.create_table(
        "penstock_requests",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("started", sa.Double, nullable=False),
        sa.Column("seconds", sa.Double),
        sa.Column("first_token", sa.Double),
        sa.Column("key_id", sa.Text),
        sa.Column("route", sa.Text),
        sa.Column("model_group", sa.Text),
        sa.Column("deployment", sa.Text),
        sa.Column("provider", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("stream", sa.Boolean),
        sa.Column("outcome", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("total_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cache_write_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("usage_complete", sa.Boolean),
        sa.Column("cost", sa.BigInteger),
        sa.Column("chunks", sa.BigInteger),
        sa.Column("attempts", sa.Text),
        sa.Column("end_user", sa.Text),
        sa.Column("trace", sa.Text),
    )
    op.create_index("penstock_requests_started", "penstock_requests", ["started"])
    op.create_index("penstock_requests_key", "penstock_requests", ["key_id", "started"])
    op.create_index("penstock_requests_model", "penstock_requests", ["model", "started"])
