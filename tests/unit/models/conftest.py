"""A CLIP small enough for unit tests, and photographs drawn on the spot."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from jaxtyping import install_import_hook

with install_import_hook("models", "beartype.beartype"):
    from models.backbone import Backbone
    from models.features import MemoryFeatureStore
    from models.recipe import Recipe

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}


def build_clip(*, custom_text: bool = False, causal: bool = True, seed: int = 0) -> torch.nn.Module:
    """Return a random CLIP with an embedding width of 16."""
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = kind(
            embed_dim=16, vision_cfg=dict(VISION), text_cfg={**TEXT, "no_causal_mask": not causal}
        )
    open_clip.model.set_model_preprocess_cfg(
        clip,
        {
            "size": 32,
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "interpolation": "bicubic",
        },
    )
    return clip.eval()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return Backbone(build_clip(), open_clip.SimpleTokenizer(), source="tiny", device="cpu")


@pytest.fixture(scope="session")
def other_backbone() -> Backbone:
    return Backbone(build_clip(seed=1), open_clip.SimpleTokenizer(), source="other", device="cpu")


@pytest.fixture
def recipe() -> Recipe:
    """A recipe that is done in a moment."""
    return Recipe(steps=6, warmup_steps=1, batch_size=4, folds=2, threads=1, lr=0.1)


@pytest.fixture
def store() -> MemoryFeatureStore:
    return MemoryFeatureStore()


def encode(image: PIL.Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def noise_image(seed: int, colour: tuple[int, int, int], size: int = 40) -> PIL.Image.Image:
    noise = np.random.default_rng(seed).integers(-30, 30, (size, size, 3))
    return PIL.Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8))


COLOURS = {"good": (200, 60, 60), "scratch": (60, 60, 200), "stain": (60, 200, 60)}


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder of `n` photographs for each class."""

    def write(*names: str, n: int = 4) -> Path:
        root = tmp_path / "photographs"
        for index, name in enumerate(names or COLOURS):
            folder = root / name
            folder.mkdir(parents=True)
            colour = COLOURS.get(name, (40 * index + 20,) * 3)
            for number in range(n):
                image = noise_image(1000 * index + number, colour)
                (folder / f"{number}.png").write_bytes(encode(image))
        return root

    return write
