"""The data doctor at work in a child: what a tuning and an examination by itself have in common."""

from collections.abc import Sequence

import numpy as np
import structlog

from models.backbone import Backbone
from models.classes import ClassSpec
from models.dataset import LabelledImage
from models.features import FeatureStore, image_features
from models.findings.examine import examine
from models.findings.finding import Finding
from models.findings.subject import look_at
from models.findings.trait_store import TraitStore
from models.imaging import View
from models.progress import Progress, no_progress
from models.recipe import Recipe

log = structlog.get_logger(__name__)


def examine_images(
    classes: Sequence[ClassSpec],
    images: Sequence[LabelledImage],
    backbone: Backbone,
    view: View,
    features: FeatureStore,
    traits: TraitStore,
    *,
    recipe: Recipe | None = None,
    progress: Progress = no_progress,
) -> list[Finding]:
    """Return what is wrong with the images; `progress`, which may raise, is told of images done."""

    def encode(readable: Sequence[LabelledImage]) -> np.ndarray:
        return image_features(readable, backbone, view, features, progress=progress).numpy()

    subject = look_at(
        [spec.name for spec in classes],
        images,
        traits,
        encode=encode,
        view_size=backbone.pixels.size,
        recipe=recipe,
        progress=progress,
    )
    found = examine(subject)
    log.info("examined", images=len(images), findings=len(found))
    return found
