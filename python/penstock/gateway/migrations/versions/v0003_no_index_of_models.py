"""No index by model: whoever asks for a model asks for a group of that name as well, which it did not serve."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Drops it."""
    op.drop_index("penstock_requests_model", "penstock_requests")
