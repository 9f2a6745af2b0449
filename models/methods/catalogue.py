"""All methods by name, and with what goes on top: `coop`, `kgcoop+lc+mi=5`, `coop+la+alpha=0.5`."""

from collections.abc import Callable, Mapping
from typing import Any

from models.methods.method import Method
from models.methods.tuned import Schedule

# What a spec's additions stand for, and the value of those that are given none.
_SHORT: Mapping[str, tuple[str, Any]] = {
    "lc": ("lc_weight", 1.0),
    "mi": ("mi_weight", 1.0),
    "la": ("logit_adjustment", 1.0),
    "alpha": ("alpha", 0.5),
}

Maker = Callable[[Mapping[str, Any], Schedule], Method]
