"""For which versions INT8 may answer: numbers worked out by hand."""

import math

import numpy as np
import pytest

from app.core.ids import new_id
from app.predictions.engines.int8 import Judgement, Verdict
from app.predictions.quantizing import macro
from models.imaging import PixelSpec

FASTER = {"fp32": {1: 10.0, 16: 20.0}, "int8": {1: 20.0, 16: 30.0}}
SLOWER = {"fp32": {1: 10.0, 16: 20.0}, "int8": {1: 12.0, 16: 16.0}}


def judged(fp32: float | None, int8: float | None, refused: str | None = None) -> Judgement:
    return Judgement(
        project="belts", project_id=new_id(), version=3, digest="sha256:a", images=40,
        fp32=fp32, int8=int8, refused=refused,
    )  # fmt: skip


def verdict(*judgements: Judgement, speeds: dict[str, dict[int, float]] = FASTER) -> Verdict:
    return Verdict(
        engine="onnx", fp32="torch", source="tiny", digest="sha256:backbone",
        pixels=PixelSpec(32, (0.5,) * 3, (0.5,) * 3, "bicubic"),
        calibration={"images": 24, "projects": 1, "seed": 0},
        images_per_second=speeds, judgements=list(judgements),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fp32", "int8", "accepted"),
    [
        (90.0, 90.0, True),
        (90.0, 91.0, True),
        (90.0, 89.5, True),
        (90.0, 89.49, False),
        (100 * 2 / 3, 100 * 2 / 3 - 0.5, True),  # 0.5 and a rounding error
        (0.0, math.nan, False),
    ],
)
def test_half_a_point_is_the_most_that_int8_may_cost(
    fp32: float, int8: float, accepted: bool
) -> None:
    one = judged(fp32, int8)
    assert (one.against is None) is accepted
    assert verdict(one).accepted() == ({"sha256:a"} if accepted else set())


def test_what_was_not_measured_is_not_accepted() -> None:
    one = judged(None, None, refused="it has no held-out images to judge by")
    assert one.cost is None
    assert not verdict(one).accepted()
    assert "'belts' version 3 (it has no held-out images to judge by)" in str(verdict(one))


def test_the_cost_is_told() -> None:
    one = judged(90.0, 88.0)
    assert one.against == "INT8 costs 2.0 points, and may cost 0.5"
    assert one.cost == pytest.approx(2.0)


def test_int8_that_is_not_faster_is_not_used() -> None:
    # The geometric mean: 10 times 20 is more than 12 times 16.
    slow = verdict(judged(90.0, 90.0), speeds=SLOWER)
    assert not slow.faster
    assert not slow.accepted()
    assert "it is not faster" in str(slow)
    assert "fp32 10 in batches of 1, 20 in batches of 16" in str(slow)


def test_macro_accuracy_is_the_mean_of_the_classes_that_are_there() -> None:
    labels = np.array([0, 0, 0, 0, 2, 2])
    predicted = np.array([0, 0, 0, 1, 2, 0])
    assert macro(predicted, labels) == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
