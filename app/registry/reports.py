"""A version's report, rendered when it is asked for, from the artifact and what was kept for it.

No torch: what needs it, the pictures, was drawn by the worker.
"""

from typing import Any

from sqlalchemy.orm import Session

from app.core.storage import Storage
from app.core.tables import Project
from app.core.types import as_json
from app.projects.decisions import policy_of
from app.registry import service
from app.registry.service import VersionView
from models.artifact import Artifact
from models.language import LanguageCode
from models.report import ReportData, render_report
from models.report.document import report_document
from models.report.kept import KeptReport, is_page


def page(session: Session, storage: Storage, found: VersionView, language: LanguageCode) -> bytes:
    """Return the version's page.

    A page from before pages were rendered anew is answered as it was kept, in English.

    Raises:
        NotFound: nothing was kept for one.
        Damaged: what was kept is not what was put.
    """
    kept = storage.read(service.report_of(found))
    if is_page(kept):
        return kept
    return render_report(
        _data(session, storage, found, KeptReport.from_bytes(kept)), language
    ).encode()


def document(
    session: Session, storage: Storage, found: VersionView, language: LanguageCode
) -> dict[str, Any]:
    """Return all that the page says as JSON; without a title and pictures where none were kept.

    Raises:
        Damaged: what was kept is not what was put.
    """
    kept = KeptReport()
    if found.row.report_sha256 is not None:
        data = storage.read(found.row.report_sha256)
        kept = kept if is_page(data) else KeptReport.from_bytes(data)
    return as_json(report_document(_data(session, storage, found, kept), language))


def _data(session: Session, storage: Storage, found: VersionView, kept: KeptReport) -> ReportData:
    row = found.row
    policy = policy_of(session.get_one(Project, row.project_id))
    artifact = Artifact.from_bytes(storage.read(row.artifact_sha256), name=f"Version {row.number}")
    return kept.of(artifact, policy)
