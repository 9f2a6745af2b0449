"""`shotline quantize`: the image encoder in INT8, judged on every project's held-out images.

The ranges of activations are those of the projects' training images; what is accepted is decided on
images that neither tuning nor quantisation has seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import UUID

import numpy as np
import structlog
from jaxtyping import Float, Int, UInt8
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.core.database import Database
from app.core.settings import BackboneSettings, Settings
from app.core.storage import LocalStorage, Storage
from app.core.tables import Alias, ModelVersion, Project, Tuning
from app.predictions.engines import machine, onnx_engine
from app.predictions.engines.agreement import least_cosine
from app.predictions.engines.encoder import BackboneFacts, ImageEncoder
from app.predictions.engines.int8 import Int8Store, Judgement, Verdict, int8_encoder
from app.predictions.engines.loading import CONVERTED, load_encoder
from app.predictions.engines.onnx_int8 import quantize
from app.predictions.engines.speed import Speeds, fastest, images_per_second
from app.registry.service import PRODUCTION
from app.snapshots.service import SnapshotContent, read_snapshot
from models.artifact import Artifact
from models.dataset import LabelledImage, has_holdout
from models.decision import class_probabilities
from models.errors import BackboneUnavailable, BadInput, ShotlineError
from models.imaging import PixelSpec, View
from models.pixels import to_pixels
from models.progress import Phases, Progress, no_progress

log = structlog.get_logger(__name__)

CALIBRATION_IMAGES = 300
_SEED = 0
_BATCH = 16


@dataclass(frozen=True)
class InProduction:
    """A version that is served, and the images that it came from."""

    project: str
    project_id: UUID
    number: int
    artifact: Artifact
    snapshot: SnapshotContent

    def images(self, split: str) -> list[LabelledImage]:
        """Return the images on one side of the split."""
        return [image for image in self.snapshot.images if image.split == split]

    def judgement(self, **found: object) -> Judgement:
        """Return what was found of it."""
        return Judgement.model_validate(
            {
                "project": self.project,
                "project_id": self.project_id,
                "version": self.number,
                "digest": self.artifact.digest,
                **found,
            }
        )


class Encoders(NamedTuple):
    """The two that are compared."""

    fp32: ImageEncoder
    int8: ImageEncoder


def quantize_and_judge(settings: Settings, database: Database, phases: Phases) -> Verdict:
    """Quantise the gateway's encoder, judge it for every version in production, keep the verdict.

    Raises:
        BackboneUnavailable: see `load_encoder`; or the extra `onnx` is not installed, the device is
            no CPU, or the encoder cannot be quantised.
        BadInput: there is no version in production with images to calibrate on.
        Unavailable: the database is away.
        StorageUnusable: the result cannot be written.
    """
    require_onnx(settings.backbone)
    storage = LocalStorage(settings.blob_folder)
    fp32 = load_encoder(settings.backbone, settings.engine_folder)
    with database.reading() as session:
        versions = in_production(session, storage)
    own = [one for one in versions if one.artifact.header.backbone_digest == fp32.digest]
    shown = [(one.artifact.header.view, one.images("train")) for one in own]
    images, projects = calibration_pixels(shown, fp32.pixels)
    store = Int8Store(settings.int8_folder)
    with store.preparing() as folder:
        try:
            write_int8(settings.backbone, images, folder, phases("Calibrating"))
        except ShotlineError:
            raise
        except Exception as error:
            raise _not_quantised(f"{type(error).__name__}: {error}") from error
        engine, int8, speeds = _fastest(fp32, folder, settings.backbone.threads)
        verdict = Verdict(
            engine=engine,
            fp32=fp32.about,
            source=fp32.source,
            digest=fp32.digest,
            pixels=fp32.pixels,
            calibration={"images": len(images), "projects": projects, "seed": _SEED},
            images_per_second=speeds,
            judgements=judgements(versions, Encoders(fp32, int8), phases("Judging")),
        )
        store.keep(folder, verdict)
    return verdict


def require_onnx(settings: BackboneSettings) -> None:
    """Raise `BackboneUnavailable` where nothing could be quantised, or nothing run."""
    if missing := CONVERTED["onnx"].missing():
        raise BackboneUnavailable(
            f"INT8 needs {' and '.join(missing)}, which cannot be imported.",
            fix="Install it with pip install 'shotline[onnx]'.",
        )
    if settings.device not in ("auto", "cpu"):
        raise BackboneUnavailable(
            f"INT8 is for CPUs, and the device is {settings.device!r}.",
            fix="Set SHOTLINE_BACKBONE_DEVICE=cpu, or go on without INT8.",
            field="SHOTLINE_BACKBONE_DEVICE",
        )


def in_production(session: Session, storage: Storage) -> list[InProduction]:
    """Return every version that `production` names; one that cannot be read is left out."""
    query = (
        select(Project, ModelVersion, Tuning.snapshot_id)
        .join(Alias, Alias.project_id == Project.id)
        .join(ModelVersion, ModelVersion.id == Alias.version_id)
        .join(Tuning, Tuning.id == ModelVersion.tuning_id)
        .where(Alias.name == PRODUCTION)
        .order_by(Project.name)
    )
    found = []
    for project, version, snapshot_id in session.execute(query):
        try:
            name = f"The artifact of version {version.number}"
            artifact = Artifact.from_bytes(storage.read(version.artifact_sha256), name=name)
        except (ShotlineError, OSError) as error:
            log.warning("model_unusable", model=str(version.id), error=str(error))
            continue
        snapshot = read_snapshot(session, storage, snapshot_id)
        found.append(InProduction(project.name, project.id, version.number, artifact, snapshot))
    return found


def calibration_pixels(
    projects: Sequence[tuple[View, Sequence[LabelledImage]]],
    spec: PixelSpec,
    most: int = CALIBRATION_IMAGES,
) -> tuple[UInt8[np.ndarray, "n 3 size size"], int]:
    """Return images of all projects, as many of each as it has, and of how many projects.

    Raises:
        BadInput: there are none.
    """
    random = np.random.default_rng(_SEED)
    lanes = [
        [(view, images[index]) for index in random.permutation(len(images))]
        for view, images in projects
        if images
    ]
    turns = range(max(map(len, lanes), default=0))
    drawn = [lane[turn] for turn in turns for lane in lanes if turn < len(lane)][:most]
    pixels = [read for view, image in drawn if (read := _readable(image, view, spec)) is not None]
    if not pixels:
        raise BadInput(
            "No project has a version of this backbone in production whose training images could"
            " show how large activations are.",
            fix="Tune and promote a version first.",
        )
    return np.stack(pixels), min(len(lanes), len(drawn))


def _readable(
    image: LabelledImage, view: View, spec: PixelSpec
) -> UInt8[np.ndarray, "3 size size"] | None:
    try:
        return to_pixels(image.read(), view, spec.size, spec.interpolation)
    except (ShotlineError, OSError) as error:
        log.warning("image_not_used", image=image.name, error=str(error))
        return None


def write_int8(
    settings: BackboneSettings,
    images: UInt8[np.ndarray, "n 3 size size"],
    folder: Path,
    progress: Progress,
) -> None:
    """Write the backbone's image encoder into `folder` in INT8."""
    from app.predictions.engines.tower import exported_tower  # noqa: PLC0415 - torch
    from models.backbone_source import load_backbone  # noqa: PLC0415 - torch

    backbone = load_backbone(settings.name, device="cpu", offline=settings.offline)
    with TemporaryDirectory(prefix="shotline-onnx-") as name:
        onnx_engine.convert(exported_tower(backbone), backbone.pixels.size, Path(name))
        quantize(Path(name), images, folder, progress)


def _fastest(
    fp32: ImageEncoder, folder: Path, threads: int | None
) -> tuple[str, ImageEncoder, Speeds]:
    """Return what runs the INT8 file fastest, by name, and its speed beside that of `fp32`."""
    facts = BackboneFacts(fp32.source, fp32.digest, fp32.pixels)
    encoders, problems = {}, []
    for name in (name for name, engine in CONVERTED.items() if not engine.missing()):
        try:
            encoders[name] = int8_encoder(name, folder, facts, threads or machine.cores(), name)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            problems.append(f"{name}: {error}")
    if not encoders:
        raise _not_quantised("; ".join(problems))
    speeds = images_per_second({"fp32": fp32, **encoders})
    chosen = fastest({name: speeds[name] for name in encoders})
    return chosen, encoders[chosen], {"fp32": speeds["fp32"], "int8": speeds[chosen]}


def judgements(
    versions: Sequence[InProduction], encoders: Encoders, progress: Progress
) -> list[Judgement]:
    """Judge INT8 for each version."""
    total = sum(len(one.images("holdout")) for one in versions)
    found, before = [], 0
    for one in versions:

        def advance(done: int, _: int, start: int = before) -> None:
            progress(start + done, total)

        found.append(_judge(one, encoders, advance))
        before += len(one.images("holdout"))
        progress(before, total)
    return found


def _judge(one: InProduction, encoders: Encoders, progress: Progress) -> Judgement:
    header, images = one.artifact.header, one.images("holdout")
    if header.backbone_digest != encoders.fp32.digest:
        return one.judgement(refused="it was tuned for another backbone")
    if not images:
        return one.judgement(refused="it has no held-out images to judge by")
    if not has_holdout(header.classes, images):
        return one.judgement(
            images=len(images), refused="it has too few held-out images of a class to judge by"
        )
    try:
        pairs = list(compared(images, header.view, encoders, progress))
    except (ShotlineError, OSError) as error:
        return one.judgement(images=len(images), refused=f"an image cannot be read: {error}")
    left, right = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    labels = np.array([image.label for image in images])
    fp32, int8 = (_predicted(one.artifact, features) for features in (left, right))
    return one.judgement(
        images=len(images),
        fp32=macro(fp32, labels),
        int8=macro(int8, labels),
        changed=int((fp32 != int8).sum()),
        least_cosine=least_cosine(left, right),
    )


def compared(
    images: Sequence[LabelledImage],
    view: View,
    encoders: Encoders,
    progress: Progress = no_progress,
) -> Iterator[tuple[Float[np.ndarray, "b embed_dim"], Float[np.ndarray, "b embed_dim"]]]:
    """Yield the features of both encoders, batch by batch."""
    spec = encoders.fp32.pixels
    for start in range(0, len(images), _BATCH):
        progress(start, len(images))
        batch = images[start : start + _BATCH]
        pixels = np.stack(
            [to_pixels(image.read(), view, spec.size, spec.interpolation) for image in batch]
        )
        yield encoders.fp32.encode(pixels), encoders.int8.encode(pixels)


def _predicted(
    artifact: Artifact, features: Float[np.ndarray, "n embed_dim"]
) -> Int[np.ndarray, " n"]:
    shares = class_probabilities(features, artifact.class_embeddings, artifact.header.logit_scale)
    found: np.ndarray = shares.argmax(axis=1)
    return found


def macro(predicted: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """Return the mean of the classes' accuracies in percent, over the classes that are there."""
    right = predicted == labels
    return 100 * float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _not_quantised(reason: str) -> BackboneUnavailable:
    return BackboneUnavailable(
        f"The image encoder cannot be had in INT8: {reason}.",
        fix="Go on without INT8: SHOTLINE_BACKBONE_INT8=off, as it is by default.",
    )
