"""Commands as protocols' services word them, and who words those of devices known by a Sparkplug name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_KNOWN = (
    "INSERT INTO command_routes (tenant, device, protocol)"
    " SELECT DISTINCT tenant, device, 'sparkplug' FROM external_names WHERE name LIKE 'spb:%'"
    " AND NOT EXISTS (SELECT 1 FROM command_routes AS known"
    " WHERE known.tenant = external_names.tenant AND known.device = external_names.device)"
)


def upgrade() -> None:
    """Add the column and the routes."""
    op.add_column("commands", sa.Column("form", sa.Text(), nullable=True))
    op.execute(_KNOWN)
