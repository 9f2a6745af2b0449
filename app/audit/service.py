"""Reading the record of changes, and telling whether it is whole."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.errors import Damaged
from app.core.seal import Head
from app.core.tables import AuditHead


def head(session: Session) -> Head:
    """Return the chain's end as the database has it: sequence 0 and zeros before the first entry.

    Raises:
        Damaged: the row that holds it is gone.
    """
    row = session.execute(select(AuditHead.sequence, AuditHead.mac)).one_or_none()
    if row is None:
        raise Damaged(
            "The row that holds the head of the audit chain is gone.",
            fix="Restore the database from a backup.",
        )
    return Head(*row)
