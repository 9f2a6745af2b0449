"""Pictures made of a few kinds of marks; the template writes them, and escapes every text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined

Anchor = Literal["start", "middle", "end"]

INK: Final = "#15191e"
SOFT: Final = "#505963"
RULE: Final = "#dde1e6"
FAINT: Final = "#b3bac2"

# Outlines around the origin, of about the same area.
_SHAPES: Final = (
    "M-3.6,0a3.6,3.6 0 1,0 7.2,0a3.6,3.6 0 1,0 -7.2,0Z",
    "M-3.2,-3.2h6.4v6.4h-6.4Z",
    "M0,-4.4L4.2,3.2H-4.2Z",
    "M0,-4.7L4.7,0L0,4.7L-4.7,0Z",
    "M0,4.4L4.2,-3.2H-4.2Z",
    "M-1.4,-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8Z",
)
_DASHES: Final = ("none", "7 3", "2 3", "9 3 2 3", "4 2", "12 3")


@dataclass(frozen=True)
class Style:
    """How a series is told from others: colour, shape of its points, dashes of its line."""

    colour: str
    shape: str = _SHAPES[0]
    dash: str = _DASHES[0]

    @classmethod
    def of(cls, index: int, colours: Sequence[str]) -> "Style":
        """Return the style of the series with that index."""
        return cls(
            colours[index % len(colours)],
            _SHAPES[index % len(_SHAPES)],
            _DASHES[index % len(_DASHES)],
        )


@dataclass(frozen=True)
class Text:
    """A text; `size` in pixels."""

    x: float
    y: float
    text: str
    size: float = 11
    colour: str = SOFT
    anchor: Anchor = "start"
    weight: int = 400
    turn: int = 0


@dataclass(frozen=True)
class Line:
    """A line through points."""

    points: Sequence[tuple[float, float]]
    colour: str = RULE
    width: float = 1
    dash: str = "none"

    @property
    def path(self) -> str:
        """The points as SVG writes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Mark:
    """A point of a series."""

    x: float
    y: float
    shape: str
    colour: str
    opacity: float = 1
    size: float = 1


@dataclass(frozen=True)
class Bar:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass
class Figure:
    """A picture.

    Attributes:
        name: of its file, without the ending.
        title: says what is seen.
        summary: the same for those who cannot see it.
        height: grows with what is put in.
        grid: lies under the bars, which lie under all else.
    """

    name: str
    title: str
    summary: str
    width: float = 960
    height: float = 0
    grid: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def svg(self) -> str:
        """Return the picture as an SVG document that needs nothing beside itself."""
        return _ENVIRONMENT.get_template("figure.svg").render(figure=self)


_ENVIRONMENT = Environment(
    loader=PackageLoader("models.bench"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
