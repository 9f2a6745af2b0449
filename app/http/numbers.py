"""Numbers in an address, in the one form that the description names."""

import re
from typing import Annotated

from pydantic import BeforeValidator

_WHOLE = re.compile(r"-?[0-9]+")


def _digits(value: object) -> object:
    """Refuse the spaces, line ends and underscores that pydantic would read over."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError("Input should be a valid integer")
    return value


Whole = Annotated[int, BeforeValidator(_digits)]
