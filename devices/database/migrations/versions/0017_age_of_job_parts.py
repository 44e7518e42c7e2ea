"""When each part of a job's output was written: secrets go by that, not by the end of the job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; what is there already counts from the start of its job."""
    op.add_column("job_parts", sa.Column("created_ns", sa.BigInteger(), nullable=True))
    op.execute("UPDATE job_parts SET created_ns = (SELECT created_ns FROM jobs WHERE jobs.id = job_parts.job)")
