"""Numbers as people read them."""

import math
import re

from models.evaluation.results import Proportion

_SPACE = "\N{NO-BREAK SPACE}"
_MINUS = "\N{MINUS SIGN}"
_DASH = "\N{EN DASH}"

# What is shown where a number has no meaning, or could not be computed.
NOTHING = "\N{EM DASH}"


def percent(share: float) -> str:
    """Return a share such as 0.935 as `93.5 %`; only a whole is shown as 100."""
    return f"{_tenths(share)}{_SPACE}%"


def interval(value: Proportion) -> str:
    """Return a 95 % interval such as 88.1 to 96.9 %."""
    return f"{_tenths(value.low)}{_DASH}{_tenths(value.high)}{_SPACE}%"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, such as `+12.5`."""
    tenths = round(difference * 100, 1) + 0.0
    return f"{tenths:+.1f}".replace("-", _MINUS)


def number(value: float, digits: int = 3) -> str:
    """Return a number with a real minus sign; a dash where it is not finite."""
    if not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", _MINUS)


def short(cosine: float) -> str:
    """Return a cosine for a small cell: without the zero in front, a whole as `1`."""
    text = number(cosine, 2)
    return {"1.00": "1", f"{_MINUS}1.00": f"{_MINUS}1", "0.00": "0"}.get(
        text, text.replace("0.", ".", 1)
    )


def seconds(value: float) -> str:
    """Return a duration as `0.4 s`, `21 s` or `3 min 05 s`."""
    if value < 0.05:
        return f"<{_SPACE}0.1{_SPACE}s"
    if value < 9.95:
        return f"{value:.1f}{_SPACE}s"
    if round(value) < 60:
        return f"{value:.0f}{_SPACE}s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}{_SPACE}min{_SPACE}{rest:02d}{_SPACE}s"


def counted(count: int, noun: str) -> str:
    """Return `1 photograph`, `20 photographs`, `1 class`, `3 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,}{_SPACE}{noun}{'' if count == 1 else ending}"


def pieces(name: str) -> list[str]:
    """Split a name after every `_`, `/` and backslash, where a line may be broken."""
    return re.split(r"(?<=[_/\\])", name)


def _tenths(share: float) -> str:
    """Round to a tenth of a percent, but never up to a whole or down to nothing."""
    value = round(share * 100, 1)
    if value == 100 and share < 1:
        value = 99.9
    if value == 0 and share > 0:
        value = 0.1
    return f"{value:.1f}" if value not in (0, 100) else f"{value:.0f}"
