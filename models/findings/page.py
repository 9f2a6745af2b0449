"""The data doctor's page: what was found, with the images, in one file that needs nothing else."""

import base64
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from models.dataset import LabelledImage
from models.errors import BadImage
from models.findings.finding import KINDS, SEVERITIES, Finding, ImageRef
from models.imaging import decode
from models.language import ENGLISH

# Nothing is loaded and nothing is run, whatever a file is called.
_POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none';"
    " form-action 'none'"
)
_SIDE, _QUALITY = 160, 80
# Findings of a kind that are shown with their images, and images of one finding.
_SHOWN, _PICTURES = 30, 6

TITLES: Final = {kind: ENGLISH.say(f"finding.{kind}") for kind in KINDS}


class _Picture(NamedTuple):
    caption: str
    label: str
    uri: str | None


class _Shown(NamedTuple):
    finding: Finding
    pictures: list[_Picture]


class _Section(NamedTuple):
    title: str
    total: int
    shown: list[_Shown]


def render_findings(
    findings: Sequence[Finding], images: Sequence[LabelledImage], *, title: str, facts: str
) -> str:
    """Return one HTML page.

    Args:
        findings: in the order in which they are to be read.
        images: all that were looked at; those that findings name are read for their thumbnails.
        title: of the set.
        facts: what was looked at, in a sentence.
    """
    by_name = {(image.sha256, image.name): image for image in images}
    kinds = dict.fromkeys(one.kind for one in findings)
    sections = []
    for kind in kinds:
        same = [one for one in findings if one.kind == kind]
        shown = [_Shown(one, _pictures(one.images, by_name)) for one in same[:_SHOWN]]
        sections.append(_Section(TITLES[kind], len(same), shown))
    counts = Counter(one.severity for one in findings)
    environment = Environment(
        loader=PackageLoader("models.findings"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("findings.html").render(
        title=title,
        facts=facts,
        policy=_POLICY,
        sections=sections,
        counts=[(name, counts[name]) for name in SEVERITIES],
    )


def _pictures(
    refs: Sequence[ImageRef], images: Mapping[tuple[str, str], LabelledImage]
) -> list[_Picture]:
    return [
        _Picture(ref.name, ref.label, _uri(images.get((ref.sha256, ref.name))))
        for ref in refs[:_PICTURES]
    ]


def _uri(image: LabelledImage | None) -> str | None:
    """Return the thumbnail as a data URI; None where the file is no image."""
    if image is None:
        return None
    try:
        small = decode(image.read())
    except (BadImage, OSError):
        return None
    small.thumbnail((_SIDE, _SIDE))
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
