"""Micro-batching: images of all projects ride together through the one image encoder.

Their features are then multiplied together with the class embeddings of all models in the batch.

A batch starts at once when the encoder is idle, with whatever waits; what arrives while it is busy
rides in the next one. Nothing ever waits for a batch to fill. Projects take turns, so that many
images of one cannot hold up another's.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import numpy as np
import structlog
from jaxtyping import Float, UInt8

from app.core.errors import DeadlinePassed, Unavailable
from app.predictions.embeddings import Head, probabilities
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.metrics import PredictionMetrics
from models.errors import ShotlineError

log = structlog.get_logger(__name__)


class Encoded(NamedTuple):
    """What an image's own model says of it, and the seconds it waited and its batch took."""

    probabilities: Float[np.ndarray, " n_classes"]
    queue: float
    encode: float


@dataclass(frozen=True, eq=False)
class _Waiting:
    pixels: UInt8[np.ndarray, "3 size size"]
    head: Head
    deadline: float
    since: float = field(default_factory=time.monotonic)
    future: Future[Encoded] = field(default_factory=Future)


class Batcher:
    """One thread that loads the encoder and then feeds it.

    How many images may wait is decided where requests are let in, see `service.Slots`.

    Args:
        load: returns the encoder.
        max_batch: images in a batch.
        metrics: counts batches.
    """

    def __init__(
        self, load: Callable[[], ImageEncoder], max_batch: int, metrics: PredictionMetrics
    ) -> None:
        self._load, self._max_batch, self._metrics = load, max_batch, metrics
        self._encoder: ImageEncoder | None = None
        self._problem: ShotlineError = _not_loaded_yet()
        self._lanes: OrderedDict[UUID, deque[_Waiting]] = OrderedDict()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the batch under way finish; whoever still waits is told."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()
        for lane in self._lanes.values():
            for waiting in lane:
                if waiting.future.set_running_or_notify_cancel():
                    waiting.future.set_exception(_stopping())

    def encoder(self) -> ImageEncoder:
        """Return the encoder.

        Raises:
            ShotlineError: it is not loaded yet, or could not be.
        """
        if self._encoder is None:
            raise self._problem.with_traceback(None)  # or it would grow with every raise
        return self._encoder

    def check(self) -> None:
        """Raise where the encoder cannot be used."""
        self.encoder()

    def about(self) -> str:
        """Return what computes and why, for people; empty until it is loaded."""
        return "" if self._encoder is None else self._encoder.about

    def submit(
        self, pixels: UInt8[np.ndarray, "3 size size"], head: Head, *, lane: UUID, deadline: float
    ) -> Future[Encoded]:
        """Let an image wait for the encoder, then to be scored by the model of `head`.

        The future can be cancelled until its batch starts. It raises `DeadlinePassed` where
        `deadline` (of `time.monotonic`) comes before that, and `Unavailable` where the encoder
        fails.
        """
        waiting = _Waiting(pixels, head, deadline)
        with self._changed:
            if self._stopping:
                raise _stopping()
            self._lanes.setdefault(lane, deque()).append(waiting)
            self._changed.notify()
        return waiting.future

    def _run(self) -> None:
        try:
            self._encoder = self._load()
        except ShotlineError as error:
            log.error("backbone_not_loaded", error=str(error))  # noqa: TRY400 - it says it all
            self._problem = error
            return
        except Exception as error:
            log.exception("backbone_not_loaded")
            self._problem = _not_loaded(error)
            return
        log.info("backbone_loaded", backbone=self._encoder.source, digest=self._encoder.digest)
        while (batch := self._take()) is not None:
            if batch:
                self._encode(self._encoder, batch)
            del batch  # which holds models, and the next one may be long in coming

    def _take(self) -> list[_Waiting] | None:
        """Return the next batch, None when stopping; blocks while nothing waits."""
        with self._changed:
            while not self._lanes and not self._stopping:
                self._changed.wait()
            if self._stopping:
                return None
            batch: list[_Waiting] = []
            while self._lanes and len(batch) < self._max_batch:
                waiting = self._next()
                if self._still_wanted(waiting):
                    batch.append(waiting)
            return batch

    def _next(self) -> _Waiting:
        """Take an image of the project whose turn it is; its next turn is after all others."""
        project, lane = self._lanes.popitem(last=False)
        waiting = lane.popleft()
        if lane:
            self._lanes[project] = lane
        return waiting

    def _still_wanted(self, waiting: _Waiting) -> bool:
        if not waiting.future.set_running_or_notify_cancel():
            return False
        if time.monotonic() < waiting.deadline:
            return True
        self._metrics.expired.inc()
        waiting.future.set_exception(deadline_passed())
        return False

    def _encode(self, encoder: ImageEncoder, batch: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        try:
            features = encoder.encode(np.stack([waiting.pixels for waiting in batch]))
            seconds = time.monotonic() - started
            found = probabilities(features, [waiting.head for waiting in batch])
        except Exception as error:
            log.exception("encoder_failed", images=len(batch))
            self._metrics.failed.inc()
            for waiting in batch:
                waiting.future.set_exception(_encoder_failed(error))
            return
        self._metrics.batch.observe(len(batch))
        self._metrics.encode.observe(seconds)
        for waiting, shares in zip(batch, found, strict=True):
            waiting.future.set_result(Encoded(shares, started - waiting.since, seconds))


def deadline_passed() -> DeadlinePassed:
    """Return the error for an image whose deadline came before its turn."""
    return DeadlinePassed(
        "The deadline passed before the image was encoded.",
        fix="Allow more time with deadline_ms, or send fewer images at a time.",
        field="deadline_ms",
    )


def _not_loaded_yet() -> Unavailable:
    return Unavailable(
        "The gateway has not loaded its backbone yet.",
        fix="Try again in a moment; /readyz says when it is ready.",
        retry_after=2.0,
    )


def _not_loaded(error: Exception) -> Unavailable:
    return Unavailable(
        f"The gateway could not load its backbone ({type(error).__name__}).",
        fix="Read the gateway's log, put it right and start the gateway again.",
        retry_after=60.0,
    )


def _stopping() -> Unavailable:
    return Unavailable("The gateway is stopping.", fix="Try again in a moment.", retry_after=2.0)


def _encoder_failed(error: Exception) -> Unavailable:
    return Unavailable(
        f"The image encoder failed ({type(error).__name__}).",
        fix="Try again; if it stays so, read the gateway's log.",
        retry_after=1.0,
    )
