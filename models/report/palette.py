"""Colours of heat maps: ramps in steps, each with the text colour that can be read on it.

The page names a step by a CSS class such as `s12`; the style sheet holds it once for light and once
for dark, so that a picture needs no script to follow the reader's theme.
"""

import math
from typing import Final, Literal

import numpy as np
from jaxtyping import Float, UInt8

Theme = Literal["light", "dark"]

# Steps of a share from 0 to 1, and of a cosine from -1 to 1.
SHARE_STEPS: Final = 20
COSINE_STEPS: Final = 40

# The page's ground and, for each ramp, the colour at full strength.
_GROUND: Final[dict[Theme, str]] = {"light": "#ffffff", "dark": "#1b1f24"}
_RIGHT: Final[dict[Theme, str]] = {"light": "#1d5b9e", "dark": "#6aa9ea"}
_WRONG: Final[dict[Theme, str]] = {"light": "#b3401f", "dark": "#ee8a62"}
_NEAR: Final[dict[Theme, str]] = {"light": "#8a4b08", "dark": "#e9a94f"}
_FAR: Final[dict[Theme, str]] = {"light": "#0c6a66", "dark": "#4fc3b8"}

# Lines and points of several series on a white ground: told apart with any colour vision (after
# Okabe and Ito 2008, darkened to a contrast of at least 4.5 to 1), and by their marks besides.
SERIES: Final = ("#0067a5", "#c14a00", "#007a5a", "#a8467e", "#15191e", "#8f6a00")


# Heat laid over a photograph: from blue to yellow through grey, which every colour vision tells
# apart, and brighter all the way (after cividis: Nuñez, Anderton, Renslow 2018).
_HEAT: Final = ("#00204d", "#31446b", "#666970", "#958f78", "#cab969", "#ffea46")


def share_class(share: float, *, right: bool) -> str:
    """Return the CSS class of a cell of a confusion matrix: `s…` for right, `w…` for wrong."""
    # A single confused image must be seen: anything above 0 is at least four steps strong.
    step = 0 if share == 0 else max(4, _step(share, SHARE_STEPS))
    return f"{'s' if right else 'w'}{step}"


def cosine_class(cosine: float) -> str:
    """Return the CSS class `c…` of a cosine; the middle step is 0, or not a number."""
    if math.isnan(cosine):
        cosine = 0.0
    return f"c{_step((cosine + 1) / 2, COSINE_STEPS)}"


def ramp_css(theme: Theme) -> str:
    """Return the rules of all steps, each setting `--cell` and `--on-cell`."""
    colours: dict[str, str] = {}
    for step in range(SHARE_STEPS + 1):
        strength = step / SHARE_STEPS
        colours[f"s{step}"] = mix(_GROUND[theme], _RIGHT[theme], strength)
        colours[f"w{step}"] = mix(_GROUND[theme], _WRONG[theme], strength)
    for step in range(COSINE_STEPS + 1):
        cosine = 2 * step / COSINE_STEPS - 1
        end = _NEAR[theme] if cosine > 0 else _FAR[theme]
        colours[f"c{step}"] = mix(_GROUND[theme], end, abs(cosine))
    return "".join(
        f".{name}{{--cell:{colour};--on-cell:{readable_on(colour)}}}"
        for name, colour in colours.items()
    )


def heat_colours(
    heat: Float[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the colour of each value from 0 to 1."""
    anchors = np.array([_channels(colour) for colour in _HEAT], dtype=float)
    at = np.linspace(0, 1, len(anchors))
    channels = [np.interp(heat, at, anchors[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def mix(start: str, end: str, strength: float) -> str:
    """Return the colour that lies `strength` (0 to 1) of the way from `start` to `end`."""
    pairs = zip(_channels(start), _channels(end), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * strength):02x}" for a, b in pairs)


def readable_on(colour: str) -> str:
    """Return black or white, whichever has the higher contrast; it is at least 4.58 to 1."""
    return max("#000000", "#ffffff", key=lambda text: contrast(text, colour))


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of WCAG 2.2, from 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def _step(share: float, steps: int) -> int:
    return min(steps, max(0, round(share * steps)))


def _channels(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _luminance(colour: str) -> float:
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _channels(colour))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
