"""What the data doctor says, as values. No torch here: the gateway and the report read them."""

from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict

from models.dataset import LabelledImage, Split
from models.language import ENGLISH, Phrase

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
        problem: what is wrong, in English sentences.
        fix: what to do, likewise.
        says: what is wrong, in phrases for any language; none of what was found before there were.
        asks: what to do, likewise.
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
    says: list[Phrase] = []
    asks: list[Phrase] = []

    @classmethod
    def told(cls, says: Sequence[Phrase], asks: Sequence[Phrase], **facts: Any) -> "Finding":
        """Return the finding that says so; `facts` are its other attributes."""
        problem, fix = ENGLISH.worded(says), ENGLISH.worded(asks)
        return cls(problem=problem, fix=fix, says=list(says), asks=list(asks), **facts)


class FindingSummary(BaseModel):
    """All findings of one kind and severity, as the artifact keeps them for the report.

    Attributes:
        kind, severity: see `Finding`.
        count: how many findings there are.
        sentence: the worst of them, and what to do, in English.
        said: the same in phrases for any language; none of what was found before there were.
        examples: the images of the worst, `EXAMPLES` findings at most, two images of each.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    severity: Severity
    count: int
    sentence: str
    said: list[Phrase] = []
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
            said=[*same[0].says, *same[0].asks],
            examples=[one.images[:2] for one in same[:EXAMPLES] if one.images],
        )
        for (kind, severity), same in found.items()
    ]


def image_ref(image: LabelledImage, classes: Sequence[str]) -> ImageRef:
    """Return what a finding says of an image."""
    return ImageRef(
        sha256=image.sha256, name=image.name, label=classes[image.label], split=image.split
    )
