"""What the data doctor says, as values. No torch here: the gateway and the report read them."""

from collections.abc import Sequence
from typing import Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from models.dataset import LabelledImage, Split

Kind = Literal[
    "exact_duplicate",
    "near_duplicate",
    "label_error",
    "outlier",
    "blur",
    "exposure",
    "size",
    "giveaway",
    "imbalance",
    "few_images",
    "identical_class",
    "unreadable",
]
Severity = Literal["serious", "warning", "note"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)

# Images that a finding names, of all that it concerns, and examples that a summary shows.
NAMED, EXAMPLES = 24, 3


class ImageRef(BaseModel):
    """An image that a finding speaks of; never its bytes.

    Attributes:
        sha256: of its bytes; empty where they could not be read.
        name: what people call it.
        label: the name of its class.
        split: on which side it is.
    """

    model_config = ConfigDict(frozen=True)

    sha256: str
    name: str
    label: str
    split: Split


class Finding(BaseModel):
    """One thing that was found.

    Attributes:
        kind: of what sort it is.
        severity: `serious` falsifies what is learnt or measured, a `warning` may, a `note` is
            worth knowing.
        images: those concerned, `NAMED` at most. Two side by side where it is of a pair: the copies
            of one image; or a label that is probably wrong, and the nearest image of the class that
            it seems to be.
        count: how many images it concerns.
        classes: names of the classes concerned; of a probable label error the present label, then
            the one it seems to be.
        score: how strong it is, within its kind; higher is worse. See the check.
        problem: what is wrong, in a sentence.
        fix: what to do, in a sentence.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    severity: Severity
    images: list[ImageRef] = []
    count: int = 0
    classes: list[str] = []
    score: float = 0.0
    problem: str
    fix: str


class FindingSummary(BaseModel):
    """All findings of one kind and severity, as the artifact keeps them for the report.

    Attributes:
        kind, severity: see `Finding`.
        count: how many findings there are.
        sentence: the worst of them, and what to do.
        examples: the images of the worst, `EXAMPLES` findings at most, two images of each.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    severity: Severity
    count: int
    sentence: str
    examples: list[list[ImageRef]] = []


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Return the serious first, then by kind in the order of `KINDS`, then the worst."""
    return sorted(
        findings,
        key=lambda one: (SEVERITIES.index(one.severity), KINDS.index(one.kind), -one.score),
    )


def summaries(findings: Sequence[Finding]) -> list[FindingSummary]:
    """Return one summary for each kind and severity that occurs, the serious first."""
    found: dict[tuple[Kind, Severity], list[Finding]] = {}
    for one in ranked(findings):
        found.setdefault((one.kind, one.severity), []).append(one)
    return [
        FindingSummary(
            kind=kind,
            severity=severity,
            count=len(same),
            sentence=f"{same[0].problem} {same[0].fix}",
            examples=[one.images[:2] for one in same[:EXAMPLES] if one.images],
        )
        for (kind, severity), same in found.items()
    ]


def image_ref(image: LabelledImage, classes: Sequence[str]) -> ImageRef:
    """Return what a finding says of an image."""
    return ImageRef(
        sha256=image.sha256, name=image.name, label=classes[image.label], split=image.split
    )
