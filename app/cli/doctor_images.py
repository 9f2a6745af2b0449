"""`shotline doctor FOLDER`: what is wrong with a folder of labelled photographs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.table import Table
from rich.text import Text

from app.cli.console import err, out, plain, progress_bar
from app.cli.options import check_output, load
from app.cli.tune import default_store

if TYPE_CHECKING:
    from jaxtyping import Float
    from numpy import ndarray

    from models.dataset import LabelledImage
    from models.findings.finding import Finding, Severity
    from models.findings.subject import Subject
    from models.progress import Progress

    Features = Float[ndarray, "n embed_dim"]

_STYLES: "dict[Severity, str]" = {"serious": "bold red", "warning": "yellow", "note": "blue"}
_SHOWN = 12  # findings of a kind that a table shows


@dataclass(frozen=True)
class Look:
    """What to look at, and how.

    Attributes:
        folder: one sub-folder of photographs per class.
        holdout: another one, of images that are not trained on.
        groups: a file with the part of each image.
        backbone: encodes the images; the starter where none is named.
        device: where.
    """

    folder: Path
    holdout: Path | None = None
    groups: Path | None = None
    backbone: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"


def doctor_images(look: Look, *, html: Path | None, force: bool, as_json: bool) -> bool:
    """Print what is found, write the page; say whether any of it is serious.

    Raises:
        BadDataset: no folder, or none with classes.
        BadInput: the page may not be written there.
    """
    if html is not None:
        check_output(html, force=force)
    images, subject, found = _examine(look)
    counts = Counter(one.severity for one in found)
    if as_json:
        findings = [one.model_dump() for one in found]
        status = "serious" if counts["serious"] else "ok"
        out.print_json(data={"status": status, "images": len(images), "findings": findings})
    else:
        out.print(_table(found))
    named = ", ".join(f"{counts[severity]} {severity}" for severity in _STYLES)
    facts = f"{len(images)} images of {len(subject.classes)} classes"
    err.print(f"{facts}: {named}.", highlight=False)
    if html is not None:
        _write_page(html, look, found, images, facts)
    return counts["serious"] > 0


def _examine(look: Look) -> "tuple[list[LabelledImage], Subject, list[Finding]]":
    from models.dataset import read_groups
    from models.features import FolderFeatureStore, image_features
    from models.findings.examine import examine
    from models.findings.folder import read_as_it_is
    from models.findings.subject import look_at
    from models.findings.trait_store import FolderTraitStore
    from models.imaging import View

    members = None if look.groups is None else read_groups(look.groups)
    store = default_store()
    with progress_bar() as bar:

        def phase(title: str) -> "Progress":
            task = bar.add_task(title, total=None, note="")
            return lambda done, total: bar.update(task, completed=done, total=total)

        classes, images = read_as_it_is(
            look.folder, holdout=look.holdout, groups=members, progress=phase("Reading files")
        )
        backbone = load(look.backbone, look.device, "auto", online=False)

        def encode(readable: "Sequence[LabelledImage]") -> "Features":
            told = phase("Encoding images")
            features = FolderFeatureStore(store)
            return image_features(readable, backbone, View(), features, progress=told).numpy()

        subject = look_at(
            classes,
            images,
            FolderTraitStore(store),
            encode=encode,
            view_size=backbone.pixels.size,
            progress=phase("Measuring images"),
        )
        return images, subject, examine(subject, progress=phase("Looking for faults"))


def _table(found: "Sequence[Finding]") -> Table:
    from models.findings.page import TITLES

    table = Table(show_lines=False)
    for heading in ("", "Found", "Fix"):
        table.add_column(heading, overflow="fold", no_wrap=not heading)
    kinds = Counter((one.severity, one.kind) for one in found)
    for severity, kind in kinds:
        same = [one for one in found if (one.severity, one.kind) == (severity, kind)]
        for one in same[:_SHOWN]:
            table.add_row(Text(severity, _STYLES[severity]), plain(one.problem), plain(one.fix))
        if len(same) > _SHOWN:
            more = f"… and {len(same) - _SHOWN} more: {TITLES[kind]}."
            table.add_row(Text(severity, _STYLES[severity]), plain(more), "")
    return table


def _write_page(
    path: Path,
    look: Look,
    found: "Sequence[Finding]",
    images: "Sequence[LabelledImage]",
    facts: str,
) -> None:
    from models.files import write_atomic
    from models.findings.page import render_findings

    page = render_findings(found, images, title=look.folder.resolve().name, facts=f"{facts}.")
    write_atomic(path, page.encode())
    err.print(plain(f"Written to {path}"), soft_wrap=True)
