"""What a running tuning tells its row."""

import json
import math

import pytest

from app.tunings.schemas import ProgressOut
from models.loss import EpochRecord
from models.tuning import TuningProgress
from worker.observer import progress_as_json

RECORD = EpochRecord(
    epoch=3,
    step=6,
    loss=0.5,
    ce=0.4,
    lc=0.1,
    mi=0.2,
    guide=0.0,
    text_nc2=0.3,
    text_to_image_nc3=0.25,
)


def test_progress_is_what_the_api_shows() -> None:
    shown = progress_as_json(TuningProgress("tune", 6, 150, RECORD, 4.5))
    assert ProgressOut(**shown).model_dump() == {
        "phase": "tune",
        "done": 6,
        "total": 150,
        "epoch": 3,
        "loss": 0.5,
        "nc": {"text_nc2": 0.3, "text_to_image_nc3": 0.25, "lc": 0.1, "mi": 0.2},
        "seconds_left": 4.5,
        "search": None,
    }


def test_before_the_first_epoch() -> None:
    shown = progress_as_json(TuningProgress("features", 0, 32))
    assert shown == {"phase": "features", "done": 0, "total": 32, "seconds_left": None}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_as_every_database_can_keep_it(value: float) -> None:
    record = EpochRecord(
        epoch=1, step=2, loss=value, ce=value, lc=value, mi=value, guide=value, text_nc2=value,
        text_to_image_nc3=value,
    )  # fmt: skip
    shown = progress_as_json(TuningProgress("tune", 2, 4, record, value))
    assert shown["loss"] is None
    assert shown["seconds_left"] is None
    assert set(shown["nc"].values()) == {None}
    json.dumps(shown, allow_nan=False)
