"""Tables that several commands print.

Names of classes are shown as they are, never read as markup or emoji codes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from models.classes import ClassSpec
    from models.collapse.metrics import CollapseMetrics
    from models.evaluation.metrics import Evaluation, Proportion

_NOTHING = "\N{EM DASH}"
# Measures of the text features, which tuning can move.
_TEXT_SIDE = {
    "text_nc2": "NC2 text",
    "text_to_image_nc3": "NC3 text to image",
    "text_equinorm": "Equinorm spread",
    "text_equiangularity": "Equiangularity spread",
    "text_cosine": "Mean text cosine (raw)",
    "lc": "LC, Gram form (raw cosines)",
    "mi": "MI, point form",
    "nc4": "NC4 agreement",
}
# Measures of the image features, which it cannot.
_IMAGE_SIDE = {"nc1": "NC1 images", "cdnv": "CDNV images", "image_nc2": "NC2 images"}
# Zero, or one of two values, whatever the two classes are.
_FIXED_FOR_TWO = {
    "text_nc2",
    "image_nc2",
    "text_to_image_nc3",
    "text_equinorm",
    "text_equiangularity",
}


def evaluation_table(
    classes: "Sequence[ClassSpec]",
    tuned: "Evaluation",
    zero_shot: "Evaluation",
    *,
    title: str = "Accuracy",
) -> Table:
    """Return accuracies with 95 % intervals, zero-shot against tuned, per class and overall."""
    basis = "held-out images" if tuned.basis == "holdout" else "out-of-fold predictions"
    table = Table(title=title, caption=f"{tuned.n_images} {basis}; 95 % intervals")
    table.add_column("Class", overflow="fold")
    for heading in ("Images", "Zero-shot, %", "Tuned, %", "Points"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, spec in enumerate(classes):
        count = sum(tuned.confusion[index])
        _add_accuracy(
            table, Text(spec.name), count, zero_shot.per_class[index], tuned.per_class[index]
        )
    table.add_section()
    bold = Text("Mean of classes", style="bold")
    _add_accuracy(table, bold, tuned.n_images, zero_shot.macro, tuned.macro)
    _add_accuracy(table, Text("All images"), tuned.n_images, zero_shot.top1, tuned.top1)
    return table


def collapse_table(
    before: "CollapseMetrics", after: "CollapseMetrics", n_classes: int, *, title: str = "Collapse"
) -> Table:
    """Return the measures of neural collapse: text before and after, images once."""
    caption = (
        "With two classes NC2 is identically 0 and NC3 is 0 or 2: the raw cosine tells"
        if n_classes == 2
        else "LC works on raw cosines, NC2 and NC3 on centred features"
    )
    table = Table(title=title, caption=caption)
    table.add_column("Measure")
    for heading in ("Before", "After", "Ideal"):
        table.add_column(heading, justify="right", no_wrap=True)
    ideals = {"nc4": 1.0, "text_cosine": -1.0 / (n_classes - 1)}
    for key, name in _TEXT_SIDE.items():
        if n_classes > 2 or key not in _FIXED_FOR_TWO:
            values = (getattr(before, key), getattr(after, key), ideals.get(key, 0.0))
            table.add_row(name, *(_number(value) for value in values))
    table.add_section()
    for key, name in _IMAGE_SIDE.items():
        if n_classes > 2 or key not in _FIXED_FOR_TWO:
            table.add_row(f"{name} (not moved)", "", _number(getattr(after, key)), _number(0.0))
    return table


def seconds_table(seconds: Mapping[str, float], *, title: str = "Time") -> Table:
    """Return the seconds of each phase, and their sum."""
    table = Table(title=title)
    table.add_column("Phase")
    table.add_column("Seconds", justify="right")
    for phase, value in seconds.items():
        table.add_row(Text(phase.replace("_", " ")), f"{value:.1f}")
    table.add_section()
    table.add_row("total", f"{sum(seconds.values()):.1f}")
    return table


def _add_accuracy(
    table: Table, name: Text, count: int, zero_shot: "Proportion", tuned: "Proportion"
) -> None:
    gain = round(100 * (tuned.value - zero_shot.value), 1) + 0.0
    table.add_row(name, str(count), _accuracy(zero_shot), _accuracy(tuned), f"{gain:+.1f}")


def _accuracy(value: "Proportion") -> str:
    return f"{100 * value.value:.1f} ({100 * value.low:.1f}\N{EN DASH}{100 * value.high:.1f})"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if math.isfinite(value) else _NOTHING
