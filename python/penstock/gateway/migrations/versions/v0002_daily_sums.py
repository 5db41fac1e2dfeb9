"""Sums of each day, so that nobody has to add up requests to know what was spent."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_DAY = {
    "sqlite": "strftime('%Y-%m-%d', started, 'unixepoch')",
    "postgresql": "to_char(to_timestamp(started) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}

_ADD_UP = """
    INSERT INTO penstock_daily (
        day, key_id, model_group, provider, model, requests, failures,
        prompt_tokens, completion_tokens, total_tokens, cached_tokens, cost
    )
    SELECT
        DAY, coalesce(key_id, ''), coalesce(model_group, ''), coalesce(provider, ''), coalesce(model, ''),
        count(*), sum(CASE WHEN outcome IN ('complete', 'left') THEN 0 ELSE 1 END),
        coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0), coalesce(sum(total_tokens), 0),
        coalesce(sum(cached_tokens), 0), coalesce(sum(cost), 0)
    FROM penstock_requests
    GROUP BY 1, 2, 3, 4, 5
"""


def upgrade() -> None:
    """Makes the table and adds up what there is."""
    op.create_table(
        "penstock_daily",
        sa.Column("day", sa.Text, primary_key=True),
        sa.Column("key_id", sa.Text, primary_key=True),
        sa.Column("model_group", sa.Text, primary_key=True),
        sa.Column("provider", sa.Text, primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("failures", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("total_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("cost", sa.BigInteger, nullable=False),
    )
    op.execute(_ADD_UP.replace("DAY", _DAY[op.get_bind().dialect.name]))
