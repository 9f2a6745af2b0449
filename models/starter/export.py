"""Writes a finished student as an open_clip ``local-dir:`` folder: config, weights, checksums."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.files import file_sha256
from models.starter.student import MODEL_CONFIG
from models.starter.teacher import Projection

CONFIG_NAME = "open_clip_config.json"
WEIGHTS_NAME = "open_clip_model.safetensors"
CHECKSUMS_NAME = "SHA256SUMS"

# Image features lose their length in a CLIP, so their usual length goes into the scale: the mean
# of |P'(f - m)| over images times the mean length of the centred classifier rows makes
# scale * cosine as wide as the classifier's own logits. Measured on 60 photographs of clothing
# (CC0), none of which is used for any figure in the model card.
LOGIT_SCALE = 17.0

PREPROCESS: dict[str, Any] = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def attach_image_tower(
    student: open_clip.CLIP, classifier: nn.Module, projection: Projection
) -> None:
    """Give the student its image tower: the classifier's trunk, then `(f - mean) @ basis`."""
    trunk = {
        name: tensor
        for name, tensor in classifier.state_dict().items()
        if not name.startswith("classifier.")
    }
    student.visual.trunk.load_state_dict(trunk)
    with torch.no_grad():
        student.visual.head.proj.weight.copy_(projection.basis.T)
        student.visual.head.proj.bias.copy_(-(projection.mean @ projection.basis))
        student.logit_scale.fill_(math.log(LOGIT_SCALE))


def half_precision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All floating tensors in fp16; the step counters of the batch norms are left out.

    The counters are integers that only training reads; torch sets them itself when a file lacks
    them. Raises ValueError where fp16 cannot hold a value.
    """
    kept = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    halves = {name: tensor.detach().half().contiguous() for name, tensor in kept.items()}
    for name, tensor in halves.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"tensor {name} reaches {kept[name].abs().max():.3g}, fp16 ends at 65504: "
                "the student has diverged; lower its learning rate"
            )
    return halves


def export(student: open_clip.CLIP, folder: Path) -> Path:
    """Write config, fp16 weights and SHA256SUMS into `folder`; return the weights' path."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / WEIGHTS_NAME
    save_file(half_precision(student.state_dict()), weights, metadata={"format": "pt"})
    config = {"model_cfg": MODEL_CONFIG, "preprocess_cfg": PREPROCESS}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    lines = [f"{file_sha256(folder / name)}  {name}\n" for name in (CONFIG_NAME, WEIGHTS_NAME)]
    (folder / CHECKSUMS_NAME).write_text("".join(lines), encoding="utf-8")
    return weights
