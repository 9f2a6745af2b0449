"""A CLIP with a ViT-B/32 of random weights: what such a tower costs, where no trained one is."""

import json
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

# Its text tower is small: nothing is asked of it.
_VIT = {
    "embed_dim": 512,
    "vision_cfg": {
        "image_size": 224, "layers": 12, "width": 768, "head_width": 64, "patch_size": 32
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}  # fmt: skip
_PREPROCESS = {"mean": [0.48] * 3, "std": [0.27] * 3, "interpolation": "bicubic"}


def write_vit(folder: Path) -> str:
    """Write a CLIP with a ViT-B/32 of random weights; return the source that loads it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = open_clip.CLIP(**_VIT)
    folder.mkdir()
    save_file(clip.state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": _VIT, "preprocess_cfg": _PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"local-dir:{folder}"
