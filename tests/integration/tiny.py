"""A CLIP that is tuned in a second, photographs for it, and versions made without a worker."""

import io
import json
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import numpy as np
import open_clip
import PIL.Image
import torch
from safetensors.torch import save_file
from sqlalchemy.orm import Session

from app.core.clock import utc_now
from app.core.storage import Storage
from app.core.tables import ModelVersion, Snapshot, Tuning
from app.registry.service import NewVersion, add_version
from models.artifact import Artifact
from models.backbone import Backbone
from models.classes import ClassSpec
from models.dataset import LabelledImage
from models.features import MemoryFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.tuning import Tuning as CoreTuning

# A recipe that is done in a moment.
RECIPE = {"steps": 4, "warmup_steps": 1, "batch_size": 8, "folds": 2, "threads": 1, "lr": 0.1}

_MODEL = {
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}  # fmt: skip
_PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic"}
_COLOURS = ((200, 60, 60), (60, 60, 200), (60, 200, 60), (200, 200, 60))


def write_backbone(folder: Path, *, seed: int = 0) -> str:
    """Write a random CLIP as an open_clip folder; return the source that loads it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = open_clip.CLIP(**_MODEL)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": _MODEL, "preprocess_cfg": _PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{folder}"


def photograph(label: int, number: int, size: int = 40) -> bytes:
    """A PNG of noise around the colour of a class; every number gives other bytes."""
    noise = np.random.default_rng([label, number]).integers(-30, 30, (size, size, 3))
    pixels = (np.array(_COLOURS[label]) + noise).clip(0, 255).astype(np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def tuned_artifact(
    backbone: Backbone,
    classes: Sequence[ClassSpec],
    *,
    seed: int = 0,
    view: View | None = None,
    count: int = 4,
) -> Artifact:
    """Tune on `count` photographs of each class."""
    images = []
    for label in range(len(classes)):
        for number in range(count):
            read = partial(photograph, label, number)
            name = sha256(read()).hexdigest()
            images.append(LabelledImage(name, label, name, "train", read, name))
    tuning = CoreTuning(
        classes,
        images,
        backbone,
        Recipe.read(dict(RECIPE)),
        seed=seed,
        view=view or View(),
        store=MemoryFeatureStore(),
    )
    return tuning.run()


def add_artifact(
    session: Session,
    storage: Storage,
    project_id: UUID,
    artifact: Artifact,
    snapshot: Snapshot | None = None,
) -> ModelVersion:
    """Record `artifact` as the project's next version, as a worker would."""
    header = artifact.header
    classes = [spec.model_dump() for spec in header.classes]
    if snapshot is None:
        project, digest = Snapshot.project_id == project_id, Snapshot.digest == header.snapshot
        snapshot = session.query(Snapshot).where(project, digest).one_or_none()
    if snapshot is None:
        snapshot = Snapshot(
            project_id=project_id, digest=header.snapshot, classes=classes, image_count=0
        )
        session.add(snapshot)
        session.flush()
    tuning = Tuning(
        project_id=project_id,
        snapshot_id=snapshot.id,
        state="succeeded",
        attempt=1,
        finished_at=utc_now(),
        recipe={},
        seed=header.seed,
        view={},
        backbone=header.backbone,
    )
    session.add(tuning)
    session.flush()
    new = NewVersion(
        digest=artifact.digest,
        artifact_sha256=storage.put(artifact.to_bytes()),
        report_sha256=None,
        backbone=header.backbone,
        backbone_digest=header.backbone_digest,
        classes=classes,
        metrics=json.loads(header.metrics.model_dump_json()),
    )
    return add_version(session, tuning, new)
