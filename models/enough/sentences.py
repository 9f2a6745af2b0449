"""Learning curves in words."""

from models.learning_curve import ClassCurve, Estimate

# Less than this is not worth a photograph.
_HARDLY = 0.005


def class_sentence(curve: ClassCurve, more: int) -> str:
    """Say what more images of a class would probably bring."""
    now, gain = curve.accuracy_now, curve.gain
    assert now is not None  # noqa: S101 - a curve that was measured has both
    assert gain is not None  # noqa: S101
    known = f"{curve.name!r}: {_images(curve.images)}, about {100 * now.value:.0f} % right"
    if gain.value < _HARDLY:
        return f"{known}; {more} more would hardly change that."
    return f"{known}; {more} more would probably bring it {_points(gain)}."


def too_few_sentence(name: str, images: int, groups: int, least: int) -> str:
    """Say why nothing can be said of a class."""
    return (
        f"{name!r}: {_images(images)} of {groups} part{'s' * (groups != 1)}; with fewer than"
        f" {least} parts nothing can be said of what more would bring. Photograph more."
    )


def next_sentence(curve: ClassCurve, more: int, least: int) -> str:
    """Say which class to photograph next, and why."""
    if curve.macro_gain is None:
        return f"Photograph {curve.name!r} next: it has fewer than {least} parts."
    if curve.gain is None or curve.gain.value < _HARDLY:
        return (
            f"There are probably enough images; {more} more of {curve.name!r} would bring most, and"
            " that is hardly anything."
        )
    return (
        f"Photograph {curve.name!r} next: {more} more would probably bring it"
        f" {_points(curve.gain)}, more than of any other class."
    )


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _points(gain: Estimate) -> str:
    low, high = 100 * gain.low, 100 * gain.high
    return f"{100 * gain.value:.1f} points ({low:.1f} to {high:.1f})"
