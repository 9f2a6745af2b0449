"""An upload, from files to rows, in three steps so that nothing rejected is ever stored.

1. `make_plan`: the project, its classes and whether they are frozen, in a transaction that reads.
2. `check_files`: hash and decode, and store the bytes of what is good. No transaction that writes
   is open meanwhile: on SQLite it would hold up every other writer, for minutes.
3. `record`: one transaction that writes the rows. Bytes without a row, left where something fails
   in between, are swept.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core import audit
from app.core.access import Principal
from app.core.errors import BadReference, BadUpload, Conflict, FileVerdict
from app.core.storage import Storage, keep_young, swept
from app.core.tables import Image, Project
from app.images import repository
from app.images.check import Checked, compare_again
from app.images.incoming import IncomingFile
from app.projects import class_list, service
from app.projects import repository as projects
from app.projects.freeze import require_not_stopped
from models.classes import ClassSpec, class_spec, default_role, normalise_name
from models.names import printable

_NAMED = 20


@dataclass(frozen=True)
class Plan:
    """What an upload needs to know of its project before the bytes are looked at.

    Attributes:
        classes: the classes' names, by their normalised ones.
        created: classes that the upload names and the project has not.
    """

    project_id: UUID
    project_name: str
    classes: dict[str, str]
    created: list[ClassSpec] = field(default_factory=list)

    def name_of(self, label: str) -> str:
        """Return the class's name as the project has or will have it."""
        key = normalise_name(label)
        return next(
            (spec.name for spec in self.created if normalise_name(spec.name) == key),
            self.classes.get(key, label),
        )


@dataclass(frozen=True)
class FileResult:
    """What became of one file."""

    checked: Checked
    label: str
    image_id: UUID | None


@dataclass(frozen=True)
class Outcome:
    """What became of an upload."""

    results: list[FileResult]
    classes_created: list[str]


def make_plan(
    reader: Session,
    principal: Principal,
    project_id: UUID,
    files: Sequence[IncomingFile],
    *,
    create_classes: bool,
    ok_names: Collection[str] = (),
) -> Plan:
    """Look up the project and find a class for every label.

    Args:
        reader: a session that only reads.
        principal: who uploads.
        project_id: where to.
        files: with their labels.
        create_classes: whether labels that the project has not become classes of it.
        ok_names: of those, the ones whose role is `ok`.

    Raises:
        NotFound: no such project.
        BadReference: an unknown label, or an `ok` name that no file has.
        BadName: a label that cannot be a class's name, or one spelt in two ways.
        Frozen: an unknown label, and the project was tuned.
        ProjectFrozen: all changes of the project are stopped.
    """
    project = service.get_project(reader, principal, project_id)
    require_not_stopped(project)
    classes = {row.name_key: row.name for row in projects.classes(reader, [project_id])}
    labels = _labels(files)
    _refuse_unknown_ok(ok_names, {*labels, *classes})
    missing = [label for key, label in sorted(labels.items()) if key not in classes]
    if missing and not create_classes:
        raise _unknown_label(project, missing[0], classes.values())
    if missing:
        class_list.require_not_frozen(reader, project)
    created = [class_spec(name, role=default_role(name, ok_names)) for name in missing]
    return Plan(project.id, project.name, classes, created)


def _labels(files: Sequence[IncomingFile]) -> dict[str, str]:
    """Return each label once, by its normalised name."""
    labels: dict[str, str] = {}
    for name in dict.fromkeys(file.label for file in files if file.problem is None):
        spec = class_spec(name)
        other = labels.setdefault(normalise_name(spec.name), spec.name)
        if other != spec.name:
            raise class_list.name_taken(spec.name, other)
    return labels


def _refuse_unknown_ok(ok_names: Collection[str], known: Collection[str]) -> None:
    for name in ok_names:
        if normalise_name(name) not in known:
            raise BadReference(
                f"The ok class {printable(name)!r} is neither in the upload nor in the project.",
                fix="Name a class that is.",
                field="ok",
            )


def _unknown_label(project: Project, label: str, classes: Collection[str]) -> BadReference:
    shown = ", ".join(repr(name) for name in list(classes)[:_NAMED]) or "none"
    return BadReference(
        f"The project {project.name!r} has no class {label!r}; it has {shown}.",
        fix="Add the class first, or send an archive with one folder per class.",
        field="label",
    )


def require_stored(storage: Storage, checked: Sequence[Checked]) -> None:
    """See that what was accepted is still there: decoding may take longer than the sweep waits.

    Raises:
        Unavailable: some of it was swept.
    """
    if keep_young(storage, [entry.sha256 for entry in checked if entry.verdict == "accepted"]):
        raise swept()


def record(
    session: Session, principal: Principal, plan: Plan, checked: Sequence[Checked]
) -> Outcome:
    """Write the rows of what was accepted, with the classes that it needs.

    Raises:
        BadUpload, BadImage: nothing of the upload can be used; nothing is written.
        NotFound, Frozen, ProjectFrozen, Conflict: the project changed meanwhile.
    """
    _require_usable(plan, checked)
    project = service.lock_project(session, principal, plan.project_id)
    names = {row.id: row.name for row in projects.classes(session, [project.id])}
    compare_again(session, project.id, checked, names.__getitem__)
    _require_usable(plan, checked)
    created = _create_classes(session, project, plan, checked)
    ids = {row.name_key: row.id for row in projects.classes(session, [project.id])}
    rows = {
        entry.sha256: _row(entry, project.id, ids[normalise_name(entry.file.label)])
        for entry in checked
        if entry.verdict == "accepted"
    }
    try:
        repository.add_all(session, list(rows.values()))
    except IntegrityError as error:
        raise Conflict(
            "The project was changed while the upload ran.", fix="Send the upload again."
        ) from error
    verdicts = Counter(entry.verdict for entry in checked)
    after = {"verdicts": verdicts, "classes_created": created, "sha256": list(rows)}
    audit.record(session, "image.upload", project.id, project=project.id, after=after)
    results = [_result(plan, entry, rows) for entry in checked]
    return Outcome(results, created)


def _require_usable(plan: Plan, checked: Sequence[Checked]) -> None:
    if all(entry.verdict == "rejected" for entry in checked):
        raise _nothing_usable(plan, checked)


def _create_classes(
    session: Session, project: Project, plan: Plan, checked: Sequence[Checked]
) -> list[str]:
    """Create the missing classes that have at least one good image."""
    used = {normalise_name(entry.file.label) for entry in checked if entry.verdict == "accepted"}
    there = {row.name_key for row in projects.classes(session, [project.id])}
    wanted = used - there
    specs = [spec for spec in plan.created if normalise_name(spec.name) in wanted]
    if len(specs) < len(wanted):
        raise Conflict(
            "A class of the upload was deleted or renamed while the upload ran.",
            fix="Send the upload again.",
            field="label",
        )
    if specs:
        class_list.require_not_frozen(session, project)
        class_list.add_classes(session, project, specs)
    return [spec.name for spec in specs]


def _row(entry: Checked, project_id: UUID, class_id: UUID) -> Image:
    assert entry.facts is not None  # noqa: S101 - what is accepted was decoded
    return Image(
        project_id=project_id,
        class_id=class_id,
        sha256=entry.sha256,
        file_name=printable(entry.file.name),
        format=entry.facts.format,
        width=entry.facts.width,
        height=entry.facts.height,
        size_bytes=entry.size,
        split=entry.file.split,
        group=entry.file.group or entry.sha256,
        pixels=None if entry.pixels is None else entry.pixels.model_dump(mode="json"),
    )


def _result(plan: Plan, entry: Checked, rows: dict[str, Image]) -> FileResult:
    image_id = entry.existing
    if image_id is None and entry.verdict != "rejected":
        image_id = rows[entry.sha256].id
    return FileResult(entry, plan.name_of(entry.file.label), image_id)


def _nothing_usable(plan: Plan, checked: Sequence[Checked]) -> Exception:
    """Return the error for an upload of which all was rejected: the one file's own, or all."""
    first = checked[0]
    assert first.problem is not None  # noqa: S101 - a rejection has a reason
    if len(checked) == 1:
        return first.problem
    return BadUpload(
        f"None of the {len(checked)} files can be used; the first,"
        f" {printable(first.file.name)!r}: {first.problem.problem}",
        fix="See results for each file's reason; correct the files and send them again.",
        field="files",
        results=[
            FileVerdict(
                file=printable(entry.file.name),
                verdict=entry.verdict,
                label=plan.name_of(entry.file.label),
                detail=entry.problem.problem if entry.problem else None,
                fix=entry.problem.fix if entry.problem else None,
            )
            for entry in checked
        ],
    )
