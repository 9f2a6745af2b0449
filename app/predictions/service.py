"""From an image to a decision: decode, ride in a batch, multiply, decide, record.

Nothing here waits for the database or for Redis, but for a version that only the database knows.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import numpy as np
import structlog
from anyio import CapacityLimiter
from jaxtyping import UInt8

from app.core.access import Principal
from app.core.clock import utc_now
from app.core.errors import Unavailable
from app.core.ids import new_id
from app.core.precedence import UnderWay
from app.core.settings import Settings
from app.core.spare import SpareMemory
from app.predictions.batcher import Batcher, Encoded, deadline_passed
from app.predictions.decoders import Decoders, Work
from app.predictions.embeddings import Head
from app.predictions.idempotency import IdempotencyStore
from app.predictions.incoming import IncomingImage
from app.predictions.metrics import PredictionMetrics
from app.predictions.model import ResidentModel
from app.predictions.records import NewRecord, RecordWriter
from app.predictions.resident import ModelCache
from app.predictions.schemas import ModelRef, PredictionOut, shown_decision
from app.shadow.scoring import Seen, Shadow, shadow_of
from models.decision import Decision, case_of, conclude
from models.errors import ShotlineError
from models.imaging import PixelSpec
from models.pixels import to_pixels
from models.trust.photograph import PhotographStatistics, photograph_statistics
from models.trust.policy import DecisionPolicy

log = structlog.get_logger(__name__)

Result = TypeVar("Result")
Outcome = PredictionOut | ShotlineError


# They read bodies and the file of idempotency keys, and wait for nothing else.
_THREADS = 16


class Question(NamedTuple):
    """What is asked of each image of a request.

    Attributes:
        model: the version that answers.
        asked_by: the API key.
        top_k: so many classes are listed; None for all.
        deadline: of `time.monotonic`; what is not encoded by then is not encoded.
    """

    model: ResidentModel
    asked_by: Principal
    top_k: int | None = None
    deadline: float = math.inf


@dataclass(eq=False)
class _Ride:
    """An image on its way through decoder and encoder.

    Attributes:
        image: as it came.
        head: of the version that answers.
        policy: what the project asks of decisions.
        encoded: can be cancelled until the image is encoded.
        data: the image's bytes, once they are read.
        photograph: its statistics, once it is decoded.
        decoding: when it was begun, of `time.monotonic`.
        decode: the seconds that it took.
    """

    image: IncomingImage
    head: Head
    policy: DecisionPolicy
    encoded: Future[Encoded] = field(default_factory=Future)
    data: bytes = b""
    photograph: PhotographStatistics | None = None
    decoding: float = 0.0
    decode: float = 0.0


class Slots:
    """How many images are worked on or wait; used on the event loop alone.

    Args:
        capacity: how many may be.
        metrics: counts them.
        told: whether any are, for workers on the same machine; see `app.core.precedence`.
    """

    def __init__(
        self, capacity: int, metrics: PredictionMetrics, told: UnderWay | None = None
    ) -> None:
        self._free, self._capacity, self._metrics = capacity, capacity, metrics
        self._told = told

    @property
    def full(self) -> bool:
        """Whether none is free."""
        return self._free == 0

    def refuse(self, count: int) -> Unavailable:
        """Count `count` images as refused, and return what their caller is told."""
        self._metrics.shed.inc(count)
        return Unavailable(
            f"The gateway has {self._capacity - self._free} images to decide on already;"
            f" {self._free} more are taken, {count} were sent.",
            fix="Try again after the seconds in Retry-After, or send fewer images at a time.",
            retry_after=1.0,
        )

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Hold `count` slots.

        Raises:
            Unavailable: fewer are free.
        """
        if count > self._free:
            raise self.refuse(count)
        self._free -= count
        self._metrics.waiting.inc(count)
        if self._told is not None:
            self._told.begin()
        try:
            yield
        finally:
            self._free += count
            self._metrics.waiting.dec(count)
            if self._told is not None and self._free == self._capacity:
                self._told.end()


class Predictions:
    """The prediction path of a gateway, and what belongs to it.

    Attributes:
        models: what is served.
        batcher: the encoder.
        int8: returns another batcher for the artifacts, by digest, that have one.
        records: the background writer.
        answers: remembered under Idempotency-Keys.
        slots: how many images may be under way.
        threads: for what blocks; other requests may have all of theirs wait for the database.
        spare: holds bodies while the disk is full.
    """

    def __init__(
        self,
        settings: Settings,
        models: ModelCache,
        batcher: Batcher,
        records: RecordWriter,
        answers: IdempotencyStore,
        metrics: PredictionMetrics,
        int8: Callable[[str], Batcher | None] = lambda _: None,
    ) -> None:
        self.models, self.batcher, self.records = models, batcher, records
        self.int8 = int8
        self.answers, self.metrics = answers, metrics
        self.threads = CapacityLimiter(_THREADS)
        self.spare = SpareMemory(2 * settings.limits.predict_bytes)
        self._running: set[asyncio.Task[None]] = set()
        self._max_pixels = settings.limits.image_pixels
        # Of a request with many images so many are under way at once, which keeps batches full.
        self._window = min(
            2 * settings.prediction.max_batch, max(1, settings.prediction.max_queue // 2)
        )
        self._told = UnderWay.opened(settings.precedence_file)
        self.slots = Slots(settings.prediction.max_queue, metrics, self._told)
        self._to_decode: list[Work] = []
        self._decoders = Decoders(settings.prediction.decode_workers, lambda: batcher.fed)

    def start(self) -> None:
        """Start the decoders; the other parts are components of their own."""
        self._decoders.start()

    def stop(self) -> None:
        """End the decoders."""
        self._decoders.stop()
        if self._told is not None:
            self._told.close()

    async def project_model(self, project_id: UUID) -> ResidentModel:
        """Return what the project has in production, from memory.

        Only a project that is not known asks the database, which may know a very young one; a
        model that is not in memory is read from its file.
        """
        if not self.models.knows(project_id):
            await asyncio.to_thread(self.models.refresh)
        version = self.models.production(project_id)
        return self.models.resident(version.id) or await _loaded(self.models.load(version))

    async def model(self, version_id: UUID, principal: Principal) -> ResidentModel:
        """Return a version; only its first use here waits for the database."""
        found = self.models.resident(version_id)
        if found is None:
            found = await _loaded(self.models.fetch(version_id))
            if not self.models.knows(found.project_id):
                await asyncio.to_thread(self.models.refresh)
        principal.require_project(found.project_id, "model", version_id)
        return found

    def keep_running(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Return a task that runs to its end although nobody may hold it any more."""
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def slots_for(self, images: Sequence[IncomingImage]) -> AbstractContextManager[None]:
        """Return what holds as many slots as `images` need at once; entering it may raise."""
        return self.slots.taken(min(len(images), self._window))

    async def each(
        self, images: Sequence[IncomingImage], question: Question
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        """Yield (place, prediction or what stands against it) in the order of completion."""
        places = iter(range(len(images)))
        running: dict[asyncio.Task[Outcome], int] = {}

        def fill() -> None:
            while len(running) < self._window and (place := next(places, None)) is not None:
                task = asyncio.create_task(self._outcome(images[place], question))
                running[task] = place

        fill()
        try:
            while running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield running.pop(task), task.result()
                fill()
        finally:
            for task in running:
                task.cancel()

    async def _outcome(self, image: IncomingImage, question: Question) -> Outcome:
        try:
            return await self.predict(image, question)
        except ShotlineError as error:
            return error

    async def predict(self, image: IncomingImage, question: Question) -> PredictionOut:
        """Return the decision on one image, and have it recorded.

        Raises:
            BadImage, BadView: the image cannot be used.
            ArtifactMismatch: the version belongs to another backbone.
            DeadlinePassed: it was not the image's turn in time.
            Unavailable: the encoder is not there, or failed.
        """
        model, started = question.model, time.monotonic()
        policy = self.models.project(model.project_id).decisions
        ride = _Ride(image, model.check_encoder(self.batcher.encoder()), policy)
        self._decode_soon(partial(self._decode, ride, question))
        encoded = await self._before(question.deadline, ride.encoded)
        decision = conclude(model.labels, encoded.found, ride.policy, top_k=question.top_k)
        waited = ride.decoding - started + encoded.queue
        self.metrics.queue.observe(waited)
        answer = _answer(
            image,
            model,
            decision,
            {
                "decode": ride.decode,
                "queue": waited,
                "encode": encoded.encode,
                "total": time.monotonic() - started,
            },
        )
        beside = self._beside(model, Seen(encoded.features, ride.photograph, ride.policy))
        self._record(answer, image, ride.data, question, beside)
        return answer

    def _beside(self, model: ResidentModel, seen: Seen) -> Shadow | None:
        """Return what has the candidate answer as well; None where it is not to, or cannot."""
        try:
            served = self.models.project(model.project_id)
            wanted, production = served.shadow, served.production
            if wanted is None or production is None or production.id != model.id:
                return None
            candidate = None if wanted.id == model.id else self.models.resident(wanted.id)
            if candidate is not None:
                return shadow_of(candidate, model, seen)
            if wanted.id != model.id:
                self.models.load(wanted)  # another thread reads it; this image goes without
        except Exception:  # the line has its answer, whatever ails the candidate
            log.exception("shadow_failed", images=1)
            self.metrics.shadow_failed.inc()
        return None

    def _batcher_for(self, model: ResidentModel) -> Batcher:
        return self.int8(model.digest) or self.batcher

    def _decode_soon(self, work: Work) -> None:
        """Hand images on to the decoders once the event loop has begun with all that came at once.

        A decoder that was woken sooner would hold it up: both need the interpreter.
        """
        if not self._to_decode:
            asyncio.get_running_loop().call_soon(self._hand_on)
        self._to_decode.append(work)

    def _hand_on(self) -> None:
        work, self._to_decode = self._to_decode, []
        self._decoders.submit(work)

    def _decode(self, ride: _Ride, question: Question) -> None:
        """Decode an image and hand it on to the encoder; what is wrong with it goes to its future.

        On a decoder's thread, which wakes the event loop for nothing in between.
        """
        if ride.encoded.cancelled():
            return
        try:
            model, batcher = question.model, self._batcher_for(question.model)
            pixels = self._pixels(ride, model, batcher.encoder().pixels)
            batcher.submit(
                pixels,
                ride.head,
                case_of(model.roles, model.judge, ride.policy, ride.photograph),
                lane=model.project_id,
                deadline=question.deadline,
                future=ride.encoded,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
            if ride.encoded.set_running_or_notify_cancel():
                ride.encoded.set_exception(error)

    def _pixels(
        self, ride: _Ride, model: ResidentModel, spec: PixelSpec
    ) -> UInt8[np.ndarray, "3 size size"]:
        ride.decoding = time.monotonic()
        ride.data = ride.image.read()
        pixels = to_pixels(
            ride.data, model.view, spec.size, spec.interpolation, max_pixels=self._max_pixels
        )
        if model.judge is not None:
            ride.photograph = photograph_statistics(pixels)
        ride.decode = time.monotonic() - ride.decoding
        self.metrics.decode.observe(ride.decode)
        return pixels

    async def _before(self, deadline: float, future: Future[Result]) -> Result:
        """Wait for `future`; give up at the deadline unless the work has begun."""
        waiter = asyncio.wrap_future(future)
        if deadline == math.inf:
            return await waiter
        try:
            timeout = max(0.0, deadline - time.monotonic())
            done, _ = await asyncio.wait({waiter}, timeout=timeout)
            if not done and future.cancel():
                self.metrics.expired.inc()
                raise deadline_passed()
            return await waiter
        finally:
            future.cancel()

    def _record(
        self,
        answer: PredictionOut,
        image: IncomingImage,
        data: bytes,
        question: Question,
        shadow: Shadow | None,
    ) -> None:
        self.metrics.decisions.labels(answer.decision).inc()
        log.info(
            "predicted",
            prediction_id=str(answer.prediction_id),
            model=str(answer.model.id),
            decision=answer.decision,
            reason=answer.reason,
            ms=answer.timings_ms["total"],
        )
        keep = self.models.project(question.model.project_id).keep_images
        wanted = keep == "all" or (keep == "undecidable" and answer.decision == "undecidable")
        # Where the two differ is where somebody will want to look.
        perhaps = not wanted and shadow is not None and keep == "undecidable"
        self.records.add(
            NewRecord(
                _values(answer, image, question),
                data if wanted or perhaps else None,
                shadow,
                only_if_differs=perhaps,
            )
        )


async def _loaded(future: Future[ResidentModel]) -> ResidentModel:
    """Wait for a model that others may wait for too: who leaves does not stop its loading."""
    return await asyncio.shield(asyncio.wrap_future(future))


def _answer(
    image: IncomingImage, model: ResidentModel, decision: Decision, seconds: dict[str, float]
) -> PredictionOut:
    return PredictionOut(
        prediction_id=new_id(),
        image_id=image.origin.image_id,
        **shown_decision(decision),
        model=ModelRef(id=model.id, version=model.number, digest=model.digest),
        timings_ms={name: round(value * 1000, 2) for name, value in seconds.items()},
    )


def _values(answer: PredictionOut, image: IncomingImage, question: Question) -> dict[str, object]:
    return {
        "id": answer.prediction_id,
        "project_id": question.model.project_id,
        "model_version_id": answer.model.id,
        "model_number": answer.model.version,
        "model_digest": answer.model.digest,
        "image_id": answer.image_id,
        "part_id": image.origin.part_id,
        "station": image.origin.station,
        "captured_at": image.origin.captured_at,
        "decision": answer.decision,
        "reason": answer.reason,
        "label": answer.label,
        "probability": answer.probability,
        "probabilities": [
            {"label": entry.label, "probability": entry.probability}
            for entry in answer.probabilities
        ],
        "prediction_set": answer.prediction_set,
        "timings_ms": answer.timings_ms,
        "image_sha256": None,
        "image_bytes": None,
        "requested_by": question.asked_by.key_id,
        "created_at": utc_now(),
    }
