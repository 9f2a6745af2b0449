"""The child: decides on one batch, part by part. Alone touches the image encoder and its device.

`python -m worker.batch_run BATCH ATTEMPT`, started by `worker.supervisor`. A part is stored first,
then recorded together with the progress while the lease holds: whatever becomes of this process,
the next one goes on after the last part, and no image is in the result twice.
"""

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import structlog
from jaxtyping import Float, UInt8

from app.batches import repository
from app.batches.results import as_line
from app.batches.states import Progress, note_part
from app.core.database import Database
from app.core.errors import Unavailable
from app.core.jobs import BATCHES, Failure, Lease, ahead_of, failure_of
from app.core.settings import Settings
from app.core.storage import Storage
from app.core.tables import BatchImage, BatchPart, Project
from app.predictions.embeddings import EmbeddingStore, evidence
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.engines.loading import load_encoder
from app.predictions.model import ResidentModel, read_artifact_of, resident
from app.predictions.repository import Version
from app.predictions.repository import version as find_version
from app.predictions.schemas import shown_decision
from app.projects.decisions import policy_of
from models.chunks import smaller
from models.decision import decide
from models.errors import OutOfMemory, ShotlineError
from models.faults import fault_of
from models.pixels import to_pixels
from models.trust.photograph import PhotographStatistics, photograph_statistics
from models.trust.policy import DecisionPolicy
from worker.child import GaveWay, HandedBack, LeaseLost, main, patiently, run_job

log = structlog.get_logger(__name__)

Pixels = UInt8[np.ndarray, "3 size size"]


class Decoded(NamedTuple):
    """What an image encoder sees of a photograph, and what the photograph is like."""

    pixels: Pixels
    photograph: PhotographStatistics


class Job(NamedTuple):
    """What is to be done.

    Attributes:
        version: decides.
        policy: what the project asks of decisions now.
        top_k: so many classes are listed; None for all.
        total: images of the batch.
        done: images that earlier attempts recorded.
        failed: those of them with a problem.
    """

    version: Version
    policy: DecisionPolicy
    top_k: int | None
    total: int
    done: int
    failed: int


class Part(NamedTuple):
    """The lines of a part, and how many of them are problems."""

    lines: bytes
    failed: int


class Decider:
    """Decides on images as the gateway does: the same encoder, pixels and rounding.

    Args:
        model: the version.
        encoder: of its backbone.
        storage: holds the images.
        settings: limits, threads, and how many images ride together.
        policy: what is asked of decisions.
        top_k: so many classes are listed; None for all.

    Raises:
        ArtifactMismatch: the version belongs to another backbone.
    """

    def __init__(
        self,
        model: ResidentModel,
        encoder: ImageEncoder,
        storage: Storage,
        settings: Settings,
        policy: DecisionPolicy,
        top_k: int | None,
    ) -> None:
        self._policy = policy
        self._head = model.check_encoder(encoder)
        self._model, self._encoder, self._storage = model, encoder, storage
        self._top_k, self._ride_images = top_k, settings.prediction.max_batch
        self._shown = {"id": str(model.id), "version": model.number, "digest": model.digest}
        self._max_pixels = settings.limits.image_pixels
        self._decoders = ThreadPoolExecutor(settings.prediction.decode_workers, "decode")

    def close(self) -> None:
        """End the decoders."""
        self._decoders.shutdown(cancel_futures=True)

    def decide(self, images: Sequence[BatchImage]) -> Part:
        """Return the results of consecutive images."""
        parts: list[Part] = []
        while images:
            ride, images = images[: self._ride_images], images[self._ride_images :]
            parts.append(self._ride(ride))
        return Part(b"".join(part.lines for part in parts), sum(part.failed for part in parts))

    def _ride(self, images: Sequence[BatchImage]) -> Part:
        decoded = list(self._decoders.map(self._decode, images))
        whole = [found for found in decoded if isinstance(found, Decoded)]
        decisions = iter(self._decisions(whole))
        lines = [
            as_line(
                image.position,
                image.name,
                self._shown,
                said=next(decisions) if isinstance(found, Decoded) else found,
            )
            for image, found in zip(images, decoded, strict=True)
        ]
        return Part(b"".join(lines), len(images) - len(whole))

    def _decisions(self, images: Sequence[Decoded]) -> list[dict[str, Any]]:
        if not images:
            return []
        features = self._encode([image.pixels for image in images])
        rows = evidence(features, [self._head] * len(images))
        return [
            shown_decision(
                decide(
                    self._model.labels,
                    row,
                    judge=self._model.judge,
                    policy=self._policy,
                    photograph=image.photograph,
                    top_k=self._top_k,
                )
            )
            for row, image in zip(rows, images, strict=True)
        ]

    def _encode(self, pixels: Sequence[Pixels]) -> Float[np.ndarray, "n embed_dim"]:
        """Encode the images, from here on fewer at a time where they are too many for the device.

        Raises:
            OutOfMemory: one alone is.
        """
        size = min(self._ride_images, len(pixels))
        while True:
            try:
                rides = [pixels[start : start + size] for start in range(0, len(pixels), size)]
                return np.concatenate([self._encoder.encode(np.stack(ride)) for ride in rides])
            except Exception as error:
                if fault_of(error) != "memory":
                    raise
                fewer = smaller(size)
                if fewer is None:
                    raise _out_of_memory() from error
            size = self._ride_images = fewer
            log.warning("out_of_memory", images_at_a_time=size)

    def _decode(self, image: BatchImage) -> Decoded | Failure:
        if image.sha256 is None:
            assert image.problem is not None  # noqa: S101 - an image has one of the two
            return Failure(problem=image.problem["problem"], fix=image.problem["fix"])
        spec = self._encoder.pixels
        try:
            pixels = to_pixels(
                self._storage.read(image.sha256),
                self._model.view,
                spec.size,
                spec.interpolation,
                max_pixels=self._max_pixels,
            )
        except ShotlineError as error:
            return failure_of(error)
        return Decoded(pixels, photograph_statistics(pixels))


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory(
        "The device ran out of memory, even with one image at a time.",
        fix="Free the device of other work (nvidia-smi shows it), or use a device with more"
        " memory; then start the batch again.",
    )


class BatchRun:
    """Decides on the batch that `lease` gives a right to, from where it stands."""

    def __init__(
        self, lease: Lease, settings: Settings, database: Database, storage: Storage
    ) -> None:
        self._lease, self._settings = lease, settings
        self._database, self._storage = database, storage
        self._stopping = False

    def run(self) -> int:
        """Return an exit code, see `worker.exit_codes`."""
        return run_job(self._work, BATCHES, self._lease, self._database)

    def stop(self) -> None:
        """Give the batch back after the part that is under way."""
        self._stopping = True

    def _work(self) -> None:
        job = patiently(self._read)
        if job.done < job.total:
            self._decide(job)
        patiently(self._complete)
        log.info("succeeded", images=job.total)

    def _read(self) -> Job:
        with self._database.reading() as session:
            batch = BATCHES.held(session, self._lease)
            version = None if batch is None else find_version(session, batch.model_version_id)
            if batch is None or version is None:
                raise LeaseLost
            done = sum(part.count for part in repository.parts(session, batch.id))
            failed = int((batch.progress or {}).get("failed", 0))
            policy = policy_of(session.get_one(Project, batch.project_id))
            return Job(version, policy, batch.top_k, batch.image_count, done, failed)

    def _decide(self, job: Job) -> None:
        encoder = load_encoder(self._settings.backbone, self._settings.engine_folder)
        model = self._model(job.version, encoder)
        decider = Decider(model, encoder, self._storage, self._settings, job.policy, job.top_k)
        try:
            self._parts(job, decider)
        finally:
            decider.close()

    def _model(self, version: Version, encoder: ImageEncoder) -> ResidentModel:
        artifact = read_artifact_of(version, self._storage)
        head = None
        if artifact.header.backbone_digest == encoder.digest:
            store = EmbeddingStore(self._settings.prediction.model_bytes)
            embeddings, logit_scale = artifact.class_embeddings, artifact.header.logit_scale
            head = store.add(embeddings, logit_scale, artifact.reduced())
        return resident(version, artifact, head)

    def _parts(self, job: Job, decider: Decider) -> None:
        """Decide on part after part; look up after each.

        Raises:
            LeaseLost: the batch is not ours any more, or was cancelled.
            HandedBack: the worker was told to stop.
            GaveWay: a job waits that goes first.
        """
        started, done, failed = time.monotonic(), job.done, job.failed
        while done < job.total:
            images = patiently(partial(self._images, done))
            part = decider.decide(images)
            failed += part.failed
            speed = (done + len(images) - job.done) / max(time.monotonic() - started, 1e-6)
            progress = Progress(
                done=done + len(images),
                total=job.total,
                failed=failed,
                images_per_second=round(speed, 3),
                seconds_left=round((job.total - done - len(images)) / speed, 1),
            )
            self._record(done, len(images), part.lines, progress)
            done += len(images)
            if done < job.total:
                self._look_up()

    def _images(self, start: int) -> Sequence[BatchImage]:
        count = self._settings.batch.part_images
        with self._database.reading() as session:
            found = repository.images(session, self._lease.job_id, start=start, count=count)
        if not found:
            raise LeaseLost  # deleted with its project
        return found

    def _record(self, position: int, count: int, lines: bytes, progress: Progress) -> None:
        """Store a part, then record it while the lease holds."""
        sha256 = self._storage.put(lines)

        def write() -> None:
            part = BatchPart(
                batch_id=self._lease.job_id, position=position, count=count, sha256=sha256
            )
            with self._database.unit_of_work() as session:
                standing = note_part(session, self._lease, part, progress)
            if standing != "held":
                raise LeaseLost

        patiently(write)

    def _look_up(self) -> None:
        if self._stopping:
            raise HandedBack("The worker was told to stop.")
        try:
            with self._database.reading() as session:
                waiting = [jobs.oldest_queued(session) for jobs in ahead_of(BATCHES)]
        except Unavailable:
            return  # nothing else could be claimed now either
        if any(waiting):
            log.info("giving_way")
            raise GaveWay

    def _complete(self) -> None:
        with self._database.unit_of_work() as session:
            if not BATCHES.complete(session, self._lease):
                raise LeaseLost


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], BATCHES.noun, BatchRun))
