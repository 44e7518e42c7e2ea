"""Who words the commands of devices known by a LoRaWAN name."""

from __future__ import annotations

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_KNOWN = (
    "INSERT INTO command_routes (tenant, device, protocol)"
    " SELECT DISTINCT tenant, device, 'lorawan' FROM external_names WHERE name LIKE 'lora:%'"
    " AND NOT EXISTS (SELECT 1 FROM command_routes AS known"
    " WHERE known.tenant = external_names.tenant AND known.device = external_names.device)"
)


def upgrade() -> None:
    """Add the routes."""
    op.execute(_KNOWN)
