"""Micro-batching with an encoder that can be held and made to fail."""

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from uuid import UUID

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from app.core.errors import DeadlinePassed, Unavailable
from app.core.ids import new_id
from app.predictions.batcher import Batcher, Encoded
from app.predictions.embeddings import EmbeddingStore
from app.predictions.metrics import PredictionMetrics
from models.errors import BackboneUnavailable
from models.imaging import PixelSpec

FOREVER = float("inf")
LANE = new_id()


class HeldEncoder:
    """Returns each image's first pixel, batch by batch as it is let go."""

    source, digest, about = "held", "sha256:held", "held"
    pixels = PixelSpec(2, (0.5,) * 3, (0.5,) * 3, "bicubic")

    def __init__(self) -> None:
        self.batches: list[list[float]] = []
        self.let_go = threading.Semaphore(0)
        self.busy = threading.Semaphore(0)
        self.error: Exception | None = None

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(pixels[:, 0, 0, 0].tolist())
        self.busy.release()
        assert self.let_go.acquire(timeout=10)
        if self.error is not None:
            raise self.error
        return pixels[:, 0, 0, :1].astype(np.float32)


# Of two classes, the second of which is the more probable the brighter the first pixel is.
HEAD = EmbeddingStore(1000).add(np.array([[0.0], [1.0]], dtype=np.float32), 1.0)


def first_pixel(encoded: Encoded) -> float:
    """Return what the encoder saw, from what the model made of it."""
    low, high = encoded.evidence.probabilities.tolist()
    return round(math.log(high / low), 2)


@pytest.fixture
def encoder() -> HeldEncoder:
    return HeldEncoder()


@pytest.fixture
def metrics() -> PredictionMetrics:
    return PredictionMetrics(CollectorRegistry())


@pytest.fixture
def batcher(encoder: HeldEncoder, metrics: PredictionMetrics) -> Iterator[Batcher]:
    batcher = Batcher(lambda: encoder, 4, metrics)
    batcher.start()
    yield batcher
    encoder.let_go.release(100)
    batcher.stop()


def submit(
    batcher: Batcher, value: int, lane: UUID = LANE, deadline: float = FOREVER
) -> Future[Encoded]:
    pixels = np.full((3, 2, 2), value, dtype=np.uint8)
    assert HEAD is not None
    future: Future[Encoded] = Future()
    batcher.submit(pixels, HEAD, lane=lane, deadline=deadline, future=future)
    return future


def test_an_idle_encoder_starts_at_once(batcher: Batcher, encoder: HeldEncoder) -> None:
    future = submit(batcher, 7)
    assert encoder.busy.acquire(timeout=10)
    assert encoder.batches == [[7.0]]
    encoder.let_go.release()
    encoded = future.result(10)
    assert first_pixel(encoded) == 7
    assert encoded.queue >= 0
    assert encoded.encode >= 0


def test_what_arrives_while_busy_rides_together(batcher: Batcher, encoder: HeldEncoder) -> None:
    first = submit(batcher, 0)
    encoder.busy.acquire(timeout=10)
    rest = [submit(batcher, value) for value in range(1, 7)]
    encoder.let_go.release(3)
    assert [first_pixel(future.result(10)) for future in (first, *rest)] == list(range(7))
    assert encoder.batches == [[0.0], [1.0, 2.0, 3.0, 4.0], [5.0, 6.0]]


def fill(batcher: Batcher, encoder: HeldEncoder) -> list[Future[Encoded]]:
    """Keep the encoder busy with one batch, and a full one behind it."""
    first = submit(batcher, 0)
    assert encoder.busy.acquire(timeout=10)
    behind = [submit(batcher, value) for value in range(1, 5)]
    deadline = time.monotonic() + 10
    while not all(future.running() for future in behind):
        assert time.monotonic() < deadline, "the full batch was not handed over"
        time.sleep(0.001)
    return [first, *behind]


def test_a_full_batch_is_handed_over_while_another_is_encoded(
    batcher: Batcher, encoder: HeldEncoder
) -> None:
    futures = fill(batcher, encoder)
    later = [submit(batcher, value) for value in range(5, 10)]
    assert not any(future.running() for future in later)  # two are under way, no more
    encoder.let_go.release(4)
    assert [first_pixel(future.result(10)) for future in (*futures, *later)] == list(range(10))
    assert [len(batch) for batch in encoder.batches] == [1, 4, 4, 1]


def test_projects_take_turns(batcher: Batcher, encoder: HeldEncoder) -> None:
    fill(batcher, encoder)
    many, few = new_id(), new_id()
    futures = [submit(batcher, value, many) for value in range(10, 16)]
    futures.append(submit(batcher, 20, few))
    encoder.let_go.release(10)
    for future in futures:
        future.result(10)
    assert encoder.batches[2] == [10.0, 20.0, 11.0, 12.0]


def test_a_deadline_is_honoured_before_encoding(
    batcher: Batcher, encoder: HeldEncoder, metrics: PredictionMetrics
) -> None:
    submit(batcher, 0)
    encoder.busy.acquire(timeout=10)
    late = submit(batcher, 1, deadline=time.monotonic() - 1)
    well = submit(batcher, 2, deadline=time.monotonic() + 60)
    encoder.let_go.release(10)
    with pytest.raises(DeadlinePassed, match="deadline"):
        late.result(10)
    assert first_pixel(well.result(10)) == 2
    assert encoder.batches == [[0.0], [2.0]]
    assert metrics.expired._value.get() == 1


def test_who_gives_up_is_not_encoded(batcher: Batcher, encoder: HeldEncoder) -> None:
    submit(batcher, 0)
    encoder.busy.acquire(timeout=10)
    gone, stays = submit(batcher, 1), submit(batcher, 2)
    assert gone.cancel()
    encoder.let_go.release(10)
    stays.result(10)
    assert encoder.batches == [[0.0], [2.0]]


def test_a_failing_encoder_reaches_everyone_and_recovers(
    batcher: Batcher, encoder: HeldEncoder
) -> None:
    encoder.error = RuntimeError("CUDA error: an illegal memory access")
    futures = [submit(batcher, value) for value in range(3)]
    encoder.let_go.release(10)
    for future in futures:
        with pytest.raises(Unavailable, match="image encoder failed"):
            future.result(10)
    encoder.error = None
    assert first_pixel(submit(batcher, 9).result(10)) == 9


def test_stopping_tells_those_who_wait(encoder: HeldEncoder, metrics: PredictionMetrics) -> None:
    batcher = Batcher(lambda: encoder, 4, metrics)
    batcher.start()
    under_way = submit(batcher, 0)
    encoder.busy.acquire(timeout=10)
    waiting = submit(batcher, 1)
    stopper = threading.Thread(target=batcher.stop)
    stopper.start()
    encoder.let_go.release(10)
    stopper.join(10)
    assert first_pixel(under_way.result(10)) == 0
    with pytest.raises(Unavailable, match="stopping"):
        waiting.result(10)
    with pytest.raises(Unavailable, match="stopping"):
        submit(batcher, 2)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (BackboneUnavailable("No such backbone.", fix="Choose another."), "No such backbone"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_backbone_that_cannot_be_loaded(
    metrics: PredictionMetrics, error: Exception, shown: str
) -> None:
    def load() -> HeldEncoder:
        raise error

    batcher = Batcher(load, 4, metrics)
    with pytest.raises(Unavailable, match="not loaded its backbone yet"):
        batcher.check()
    batcher.start()
    batcher.stop()
    with pytest.raises((BackboneUnavailable, Unavailable), match=shown):
        batcher.encoder()
