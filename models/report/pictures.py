"""The pictures of a report: the mistakes, and where the evidence for them was. Needs torch."""

from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from models.artifact import Artifact
from models.backbone import Backbone
from models.dataset import LabelledImage
from models.evaluation.results import WrongImage
from models.heatmaps import deletion, heatmaps
from models.heatmaps.choose import class_direction
from models.pixels import to_pixels
from models.predictor import check_backbone
from models.report.data import Heat, Mistake, small_jpeg
from models.report.palette import heat_colours

# How much of the photograph is covered where there is no evidence, and where there is most.
_LEAST_COVER, _MOST_COVER = 0.25, 0.75


def draw_mistakes(
    artifact: Artifact, images: Iterable[LabelledImage], backbone: Backbone
) -> list[Mistake]:
    """Return the mistakes that the artifact knows of, with the pictures of those among `images`.

    Args:
        artifact: a tuned model.
        images: any; each mistake is looked for by its bytes.
        backbone: that it was tuned on.

    Raises:
        ArtifactMismatch: another backbone.
        BadImage: one of them cannot be decoded.
    """
    wrong = artifact.header.metrics.wrong or []
    names = {one.sha256 for one in wrong}
    found = {image.sha256: image for image in images if image.sha256 in names}
    files = [(one, found[one.sha256].read()) for one in wrong if one.sha256 in found]
    drawn = {one.sha256: one for one in draw_photographs(artifact, files, backbone)}
    return [drawn.get(one.sha256) or Mistake(**one.model_dump()) for one in wrong]


def draw_photographs(
    artifact: Artifact, files: Sequence[tuple[WrongImage, bytes]], backbone: Backbone
) -> list[Mistake]:
    """Return mistakes with their pictures, of photographs as they came from the camera.

    Raises:
        ArtifactMismatch: another backbone.
        BadImage: one of them cannot be decoded.
    """
    if not files:
        return []
    check_backbone(artifact, backbone)
    spec, view = backbone.pixels, artifact.header.view
    pixels = torch.from_numpy(
        np.stack([to_pixels(data, view, spec.size, spec.interpolation) for _, data in files])
    )
    places = {spec.name: place for place, spec in enumerate(artifact.header.classes)}
    embeddings = torch.tensor(artifact.class_embeddings)
    taken = [(places[one.predicted], places[one.label]) for one, _ in files]
    directions = torch.stack([class_direction(embeddings, *pair) for pair in taken])
    maps = heatmaps(backbone, pixels, directions)
    drawn = []
    for (one, _), image, values, (predicted, _) in zip(
        files, pixels, maps.values, taken, strict=True
    ):
        checked = deletion(backbone, image, values, embeddings, predicted)
        heat = Heat(
            picture=small_jpeg(overlay(image, values)),
            way=maps.way,
            hottest_first=checked.hottest_first,
            random=checked.random,
        )
        thumbnail = small_jpeg(_picture(image.permute(1, 2, 0).numpy()))
        drawn.append(Mistake(**one.model_dump(), thumbnail=thumbnail, heat=heat))
    return drawn


def overlay(image: UInt8[Tensor, "3 size size"], heat: Float[Tensor, "h w"]) -> PIL.Image.Image:
    """Return the heat in colour over the photograph in grey."""
    wide = interpolate(heat[None, None], image.shape[-2:], mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()
    grey = np.asarray(_picture(image.permute(1, 2, 0).numpy()).convert("L"), dtype=float)
    cover = (_LEAST_COVER + (_MOST_COVER - _LEAST_COVER) * wide)[..., None]
    mixed = cover * heat_colours(wide) + (1 - cover) * grey[..., None]
    return _picture(mixed.round().astype(np.uint8))


def _picture(values: UInt8[np.ndarray, "h w 3"]) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.ascontiguousarray(values))
