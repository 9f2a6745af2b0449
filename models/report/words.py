"""Numbers as people read them, in whatever language."""

import math
import re

_MINUS = "\N{MINUS SIGN}"

# What is shown where a number has no meaning, or could not be computed.
NOTHING = "\N{EM DASH}"


def points(difference: float) -> str:
    """Return a difference of shares in percentage points, such as `+12.5`."""
    rounded = round(difference * 100, 1) + 0.0
    return f"{rounded:+.1f}".replace("-", _MINUS)


def number(value: float, digits: int = 3) -> str:
    """Return a number with a real minus sign; a dash where it is not finite."""
    if not math.isfinite(value):
        return NOTHING
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", _MINUS)


def short(cosine: float) -> str:
    """Return a cosine for a small cell: without the zero in front, a whole as `1`."""
    text = number(cosine, 2)
    return {"1.00": "1", f"{_MINUS}1.00": f"{_MINUS}1", "0.00": "0"}.get(
        text, text.replace("0.", ".", 1)
    )


def pieces(name: str) -> list[str]:
    """Split a name after every `_`, `/` and backslash, where a line may be broken."""
    return re.split(r"(?<=[_/\\])", name)
