"""Tables that several commands print.

Names of classes are shown as they are, never read as markup or emoji codes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE, told

if TYPE_CHECKING:
    from models.classes import ClassSpec
    from models.collapse.measures import CollapseMetrics
    from models.evaluation.results import Evaluation, Proportion
    from models.learning_curve import Estimate, LearningCurve
    from models.trust.metrics import TrustMetrics

_NOTHING = "\N{EM DASH}"


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
    for measure in told(TEXT_SIDE, n_classes):
        values = (
            getattr(before, measure.key),
            getattr(after, measure.key),
            measure.ideal(n_classes),
        )
        table.add_row(measure.name, *(_number(value) for value in values))
    table.add_section()
    for measure in told(IMAGE_SIDE, n_classes):
        value = getattr(after, measure.key)
        table.add_row(f"{measure.name} (not moved)", "", _number(value), _number(0.0))
    return table


def trust_table(trust: "TrustMetrics", *, title: str = "Decisions") -> Table:
    """Show how far a model's decisions can be trusted."""
    basis = "held-out" if trust.basis == "holdout" else "out-of-fold"
    table = Table(title=title, caption=f"{trust.n_images} {basis} images; alpha {trust.alpha:g}")
    table.add_column("Measure")
    table.add_column("Value", justify="right", no_wrap=True)
    accuracy = trust.decided_accuracy
    rows = {
        "Decided": _share(trust.decided),
        "Right, of the decided": "" if accuracy is None else _share(accuracy),
        "True class in the set": _share(trust.coverage),
        "Classes in a set": f"{trust.mean_set_size:.2f}",
        "Unlike the training images": _share(trust.unlike),
        "Calibration error before": f"{trust.before.ece:.3f}",
        f"Calibration error, temperature {trust.temperature:.2f}": f"{trust.after.ece:.3f}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def curve_table(curve: "LearningCurve", *, title: str = "Enough images?") -> Table:
    """Return what more images of each class would probably bring, and which to photograph next."""
    table = Table(title=title, caption=Text(curve.sentence))
    table.add_column("Class", overflow="fold")
    for heading in ("Images", "Now, %", f"{curve.more} more, points", "For the mean, points"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in curve.classes:
        now = _NOTHING if entry.accuracy_now is None else f"{100 * entry.accuracy_now.value:.1f}"
        own, macro = _points(entry.gain), _points(entry.macro_gain)
        table.add_row(Text(entry.name), str(entry.images), now, own, macro)
    return table


def _points(gain: "Estimate | None") -> str:
    if gain is None:
        return _NOTHING
    value, low, high = (100 * number for number in (gain.value, gain.low, gain.high))
    return f"{value:+.1f} ({low:.1f}\N{EN DASH}{high:.1f})"


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


def _share(share: "Proportion") -> str:
    return f"{100 * share.value:.1f} %"


def _number(value: float) -> str:
    return f"{round(value, 3) + 0.0:.3f}" if math.isfinite(value) else _NOTHING
