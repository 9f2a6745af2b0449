"""Micro-batching: images of all projects ride together through the one image encoder.

Their features are then multiplied together with the class embeddings of all models in the batch.

A batch starts at once when the encoder is idle, with whatever waits; what arrives while it is busy
rides in the next one. Nothing ever waits for a batch to fill; a full one is handed to the encoder
before it is done with the last. Projects take turns, so that many images of one cannot hold up
another's.
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from typing import NamedTuple
from uuid import UUID

import numpy as np
import structlog
from jaxtyping import Float, UInt8

from app.core.errors import DeadlinePassed, Unavailable
from app.predictions.embeddings import Head, evidence
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.pipeline import Features, Pipeline, Result, pipeline_of
from app.predictions.metrics import PredictionMetrics
from models.errors import ShotlineError
from models.trust.evidence import Evidence
from models.trust.judge import Case, Findings, find_all

log = structlog.get_logger(__name__)

# One is computed, the other is there when that is done.
_MOST_UNDER_WAY = 2


class Encoded(NamedTuple):
    """What an image's own model says of it, and the seconds it waited and its batch took.

    `found` is what the model's rule makes of the evidence. `features` are the image's, for whoever
    else is to say something of it.
    """

    evidence: Evidence
    found: Findings
    queue: float
    encode: float
    features: Float[np.ndarray, " embed_dim"]


@dataclass(frozen=True, eq=False)
class _Waiting:
    pixels: UInt8[np.ndarray, "3 size size"]
    head: Head
    case: Case | None
    deadline: float
    future: Future[Encoded]
    since: float = field(default_factory=time.monotonic)


class _Begun(NamedTuple):
    """A batch that the encoder has, when it got it, and what waits for its features."""

    images: Sequence[_Waiting]
    at: float
    result: Result


class Batcher:
    """A thread loads the encoder and then hands its answers out.

    A batch is begun by whoever makes it possible: the thread that brings its last image, or this
    one, once another batch is done. A thread of its own for that would have to be woken each time.

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
        self._pipeline: Pipeline | None = None
        self._problem: ShotlineError = _not_loaded_yet()
        self._lanes: OrderedDict[UUID, deque[_Waiting]] = OrderedDict()
        self._waiting, self._under_way = 0, 0  # images, batches
        self._changing = threading.Lock()
        self._stopping = False
        self._begun: SimpleQueue[_Begun | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the batches under way finish; whoever still waits is told."""
        with self._changing:
            self._stopping = True
            self._begun.put(None)  # behind all that was begun
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

    @property
    def fed(self) -> bool:
        """Whether the encoder has as many batches as it takes."""
        return self._under_way >= _MOST_UNDER_WAY

    def check(self) -> None:
        """Raise where the encoder cannot be used."""
        self.encoder()

    def about(self) -> str:
        """Return what computes and why, for people; empty until it is loaded."""
        return "" if self._encoder is None else self._encoder.about

    def submit(
        self,
        pixels: UInt8[np.ndarray, "3 size size"],
        head: Head,
        case: Case | None = None,
        *,
        lane: UUID,
        deadline: float,
        future: Future[Encoded],
    ) -> None:
        """Let an image wait for the encoder, then to be scored by the model of `head`.

        `case` is what its evidence is judged by; None where the model has no rule.

        The future can be cancelled until its batch starts. It raises `DeadlinePassed` where
        `deadline` (of `time.monotonic`) comes before that, and `Unavailable` where the encoder
        fails.

        Raises:
            Unavailable: the gateway is stopping.
        """
        waiting = _Waiting(pixels, head, case, deadline, future)
        with self._changing:
            if self._stopping:
                raise _stopping()
            self._lanes.setdefault(lane, deque()).append(waiting)
            self._waiting += 1
            self._feed()

    def _run(self) -> None:
        try:
            self._encoder = self._load()
            pipeline = pipeline_of(self._encoder)
        except ShotlineError as error:
            log.error("backbone_not_loaded", error=str(error))  # noqa: TRY400 - it says it all
            self._problem = error
        except Exception as error:
            log.exception("backbone_not_loaded")
            self._problem = _not_loaded(error)
        else:
            log.info("backbone_loaded", backbone=self._encoder.source, digest=self._encoder.digest)
            with self._changing:
                self._pipeline = pipeline
                self._feed()
            self._answer()

    def _feed(self) -> None:
        """Begin what may be begun. The lock is held: batches are answered in their order."""
        while self._pipeline is not None and self._ready():
            if batch := self._take():
                self._under_way += 1
                self._begun.put(_begin(self._pipeline, batch))

    def _ready(self) -> bool:
        """Say whether a batch may start: any if the encoder idles, behind another a full one.

        A full batch loses nothing by waiting inside the encoder; another one may still grow.
        """
        if self._stopping:
            return False
        if self._under_way == 0:
            return self._waiting > 0
        return not self.fed and self._waiting >= self._max_batch

    def _take(self) -> list[_Waiting]:
        """Return the next batch, empty where nobody wants any of it any more."""
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
        self._waiting -= 1
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

    def _answer(self) -> None:
        """Hand out what the encoder finds, batch after batch."""
        free_at = 0.0
        while (begun := self._begun.get()) is not None:
            images = begun.images
            try:
                features = begun.result()
                done = time.monotonic()
            except Exception as error:
                log.exception("encoder_failed", images=len(images))
                self._failed(images, error)
                self._ended()
                continue
            self._ended()  # first: the encoder may wait for its next batch
            started, free_at = max(begun.at, free_at), done
            self._metrics.batch.observe(len(images))
            self._metrics.encode.observe(done - started)
            self._score(images, features, started, done - started)
            del begun, images

    def _score(
        self, images: Sequence[_Waiting], features: Features, started: float, seconds: float
    ) -> None:
        try:
            seen = evidence(features, [waiting.head for waiting in images])
            found = find_all(seen, [waiting.case for waiting in images])
        except Exception as error:
            log.exception("scoring_failed", images=len(images))
            self._failed(images, error)
            return
        for waiting, own, judged, image in zip(images, seen, found, features, strict=True):
            queue = started - waiting.since
            waiting.future.set_result(Encoded(own, judged, queue, seconds, image))

    def _ended(self) -> None:
        with self._changing:
            self._under_way -= 1
            self._feed()

    def _failed(self, images: Sequence[_Waiting], error: Exception) -> None:
        self._metrics.failed.inc()
        for waiting in images:
            waiting.future.set_exception(_encoder_failed(error))


def _begin(pipeline: Pipeline, images: Sequence[_Waiting]) -> _Begun:
    at = time.monotonic()
    try:
        result = pipeline.begin(np.stack([waiting.pixels for waiting in images]))
    except Exception as error:  # noqa: BLE001 - told with those of batches under way
        result = partial(_raise, error)
    return _Begun(images, at, result)


def _raise(error: Exception) -> Features:
    raise error


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
