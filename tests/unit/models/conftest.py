"""A CLIP small enough for unit tests, and photographs drawn on the spot."""

import hashlib
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from hypothesis import settings

from models.artifact import Artifact
from models.backbone import Backbone
from models.checkpoint import Checkpoint
from models.classes import ClassSpec, class_spec
from models.dataset import LabelledImage, Split
from models.features import FeatureStore, MemoryFeatureStore
from models.imaging import View
from models.recipe import Recipe
from models.tuning import Observer, Tuning

# The same examples in every run, and none that fails because the machine is busy.
settings.register_profile("core", deadline=None, derandomize=True)
settings.load_profile("core")

VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
PIXELS = {
    "size": 32,
    "mean": (0.5, 0.5, 0.5),
    "std": (0.25, 0.25, 0.25),
    "interpolation": "bicubic",
}


def build_clip(
    *,
    custom_text: bool = False,
    causal: bool = True,
    seed: int = 0,
    quick_gelu: bool = False,
    vision: dict[str, object] | None = None,
    **text: object,
) -> torch.nn.Module:
    """Return a random CLIP of embedding width 16; `vision` and `text` change its towers."""
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = kind(
            embed_dim=16,
            vision_cfg={**VISION, **(vision or {})},
            text_cfg={**TEXT, "no_causal_mask": not causal, **text},
            quick_gelu=quick_gelu,
        )
    open_clip.model.set_model_preprocess_cfg(clip, dict(PIXELS))
    return clip.eval()


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """On tensors of this size threads do little but wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return Backbone(build_clip(), open_clip.SimpleTokenizer(), source="tiny", device="cpu")


@pytest.fixture(scope="session")
def other_backbone() -> Backbone:
    return Backbone(build_clip(seed=1), open_clip.SimpleTokenizer(), source="other", device="cpu")


@pytest.fixture(scope="session")
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


CLASSES = [class_spec(name) for name in COLOURS]


def labelled(
    label: int, data: bytes, *, group: str | None = None, split: Split = "train", name: str = ""
) -> LabelledImage:
    """Return an image that is in memory, alone in its group where none is given."""
    digest = hashlib.sha256(data).hexdigest()
    return LabelledImage(digest, label, group or digest, split, lambda: data, name or digest[:8])


def draw_images(*counts: int, split: Split = "train", first: int = 0) -> list[LabelledImage]:
    """Return that many images of each class; another `first` gives others."""
    return [
        labelled(label, encode(noise_image(1000 * label + number, colour)), split=split)
        for (label, colour), count in zip(enumerate(COLOURS.values()), counts, strict=True)
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="session")
def images() -> list[LabelledImage]:
    """Three classes of 5, 4 and 3 images."""
    return draw_images(5, 4, 3)


@pytest.fixture
def tune(
    backbone: Backbone, recipe: Recipe, images: list[LabelledImage], store: MemoryFeatureStore
) -> Callable[..., Artifact]:
    """Return a function that tunes, on `images` with `recipe` unless told otherwise."""

    def run(
        classes: Sequence[ClassSpec] = CLASSES,
        images: Sequence[LabelledImage] = images,
        recipe: Recipe = recipe,
        *,
        backbone: Backbone = backbone,
        seed: int = 0,
        view: View | None = None,
        store: FeatureStore = store,
        observer: Observer | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Artifact:
        return Tuning(
            classes,
            images,
            backbone,
            recipe,
            seed=seed,
            view=view or View(),
            store=store,
            observer=observer,
            checkpoint=checkpoint,
        ).run()

    return run


@pytest.fixture(scope="session")
def artifact(backbone: Backbone, recipe: Recipe, images: list[LabelledImage]) -> Artifact:
    """What a tuning on `images` with `recipe` and seed 0 gives."""
    store = MemoryFeatureStore()
    return Tuning(CLASSES, images, backbone, recipe, seed=0, view=View(), store=store).run()
