"""External names that queries find."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

NAMES = sa.table("external_names", *(sa.column(name) for name in ("tenant", "gateway", "name", "search")))
PART = 10_000


def upgrade() -> None:
    """Keep each name in lower case, too: the databases know only some letters."""
    op.add_column("external_names", sa.Column("search", sa.Text(), nullable=False, server_default=""))
    connection = op.get_bind()
    rows = connection.execute(sa.select(NAMES.c.tenant, NAMES.c.gateway, NAMES.c.name)).all()
    mine = sa.and_(*(NAMES.c[name] == sa.bindparam(f"of_{name}") for name in ("tenant", "gateway", "name")))
    change = sa.update(NAMES).where(mine).values(search=sa.bindparam("lower"))
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        given = [{"of_tenant": row[0], "of_gateway": row[1], "of_name": row[2], "lower": row[2].lower()} for row in part]
        connection.execute(change, given)
    op.create_index("external_names_by_name", "external_names", ["tenant", "name", "device"])
