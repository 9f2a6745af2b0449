"""Tuning as the reference implementations do it, and ours: side by side, one thread.

The reference runs the image encoder on every batch's pixels and the text tower on all positions, in
a plain CoOp loop; images are decoded beforehand, which is in its favour. Ours computes features
once, from an empty store, decoding included, and tunes on them.

Run with `python -m benchmarks.speed`; about five minutes on two cores.
"""

import cProfile
import hashlib
import inspect
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import torch
import typer
from jaxtyping import Int
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, pad

from benchmarks.common import write_results
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.features import MemoryFeatureStore, image_features
from models.imaging import View
from models.loss import Loss
from models.methods.guide import Unguided
from models.pixels import to_pixels
from models.prompts.coop import CoOp
from models.recipe import Recipe
from models.text_encoder import Prompts, TextEncoder
from models.threads import fixed_threads
from models.training_set import TrainingSet
from models.tuner import Tuner

_NAMES = [
    *("good", "scratches", "rolled-in scale", "inclusion", "pitted surface", "patches"),
    "red iron sheet",
]
_SHOTS, _EPOCHS, _ROUNDS, _IMAGE_SIZE = 16, 50, 3, 256
_BATCH = Recipe().batch_size
_EPOCH_STEPS = -(-_SHOTS * len(_NAMES) // _BATCH)
_STEPS = _EPOCHS * _EPOCH_STEPS
_RECIPE = Recipe(steps=_STEPS, threads=1)


@dataclass(frozen=True)
class Drawing:
    """A photograph's worth of noise, as JPEG."""

    data: bytes

    @property
    def sha256(self) -> str:
        """The hexadecimal sha256 of the bytes."""
        return hashlib.sha256(self.data).hexdigest()

    def read(self) -> bytes:
        """Return the JPEG."""
        return self.data


@dataclass(frozen=True)
class Ours:
    """Seconds of one run of ours, `steps` of them measured and the others extrapolated."""

    features: float
    tune: float


def main() -> None:
    """Print both, their ratio and where our time goes; write `benchmarks/results/speed.json`."""
    drawings = [_draw(number) for number in range(_SHOTS * len(_NAMES))]
    results = {
        "starter": _compare(load_backbone(device="cpu"), drawings, steps=_STEPS),
        "ViT-B/32, random weights": _compare(_vit(), drawings, steps=2 * _EPOCH_STEPS),
    }
    _print(results)
    fixed = {
        "shots": _SHOTS, "classes": len(_NAMES), "epochs": _EPOCHS, "steps": _STEPS,
        "batch_size": _BATCH, "threads": 1, "rounds": _ROUNDS,
    }  # fmt: skip
    write_results("speed", fixed | {"results": results})


def _draw(number: int) -> Drawing:
    shape = (_IMAGE_SIZE, _IMAGE_SIZE, 3)
    noise = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return Drawing(buffer.getvalue())


def _vit() -> Backbone:
    clip = open_clip.create_model("ViT-B-32", pretrained=None)
    return Backbone(clip, open_clip.get_tokenizer("ViT-B-32"), source="random", device="cpu")


def _compare(backbone: Backbone, drawings: Sequence[Drawing], *, steps: int) -> dict[str, Any]:
    """Run both in turn; `steps` of ours and an epoch of the reference in each round."""
    with fixed_threads(1):
        reference = _Reference(backbone, drawings)
        reference.epoch()
        _ours(backbone, drawings, steps=_EPOCH_STEPS)
        rounds = [
            (_EPOCHS * _seconds(reference.epoch), _ours(backbone, drawings, steps=steps))
            for _ in range(_ROUNDS)
        ]
        shares = _profile(lambda: _ours(backbone, drawings, steps=steps), steps)
    runs = [
        {
            "reference_s": slow,
            "features_s": ours.features,
            "tune_s": ours.tune,
            "ours_s": ours.features + ours.tune,
            "ratio": slow / (ours.features + ours.tune),
        }
        for slow, ours in rounds
    ]
    return {
        "reference_warm_up_steps": _EPOCH_STEPS,
        "reference_measured_steps": _EPOCH_STEPS * _ROUNDS,
        "our_measured_steps": steps,
        "median": {name: median(run[name] for run in runs) for name in runs[0]},
        "runs": runs,
        "shares_of_ours": shares,
    }


class _Reference:
    """CoOp as KaiyangZhou/CoOp trains it, on pixels that are in memory."""

    def __init__(self, backbone: Backbone, drawings: Sequence[Drawing]) -> None:
        spec, generator = backbone.pixels, torch.Generator().manual_seed(0)
        self._backbone, self._generator = backbone, generator
        pixels = [to_pixels(d.read(), View(), spec.size, spec.interpolation) for d in drawings]
        self._pixels, self._labels = torch.from_numpy(np.stack(pixels)), _labels()
        self._prompts = CoOp(backbone, _NAMES, _RECIPE, generator)
        self._optimizer = torch.optim.SGD(self._prompts.parameters(), _RECIPE.lr, _RECIPE.momentum)

    def epoch(self) -> None:
        """Take the steps of one epoch."""
        for batch in torch.randperm(len(self._labels), generator=self._generator).split(_BATCH):
            self._step(batch)

    def _step(self, batch: Int[Tensor, " b"]) -> None:
        image = self._backbone.encode_batch(self._pixels[batch])
        text = normalize(_whole_tower(self._backbone.text, self._prompts()), dim=-1)
        loss = cross_entropy(self._backbone.logit_scale * image @ text.T, self._labels[batch])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


def _whole_tower(tower: TextEncoder, prompts: Prompts) -> Tensor:
    """Run open_clip's own blocks on all positions."""
    missing = tower.context_length - prompts.embeddings.shape[1]
    hidden = pad(prompts.embeddings, (0, 0, 0, missing)) + tower.positional_embedding
    hidden = tower.ln_final(tower.transformer(hidden, attn_mask=tower.attn_mask))
    return hidden[torch.arange(len(hidden)), prompts.eot] @ tower.text_projection


def _ours(backbone: Backbone, drawings: Sequence[Drawing], *, steps: int) -> Ours:
    start = time.perf_counter()
    features = image_features(drawings, backbone, View(), MemoryFeatureStore())
    encoded = time.perf_counter()
    recipe = _RECIPE.model_copy(update={"steps": steps, "warmup_steps": 0})
    data = TrainingSet(_NAMES, features, _labels())
    tuner = Tuner(backbone, data, recipe, torch.Generator().manual_seed(0))
    made = time.perf_counter()
    tuner.run()
    run = time.perf_counter() - made
    return Ours(encoded - start, made - encoded + run * _STEPS / steps)


def _labels() -> Int[Tensor, " n"]:
    return torch.arange(len(_NAMES)).repeat_interleave(_SHOTS)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


_PARTS: dict[str, Callable[..., Any]] = {
    "features": image_features,
    "text tower, forward": TextEncoder.forward,
    "backward": Unguided.backward,
    "loss": Loss.__call__,
    "optimiser": torch.optim.SGD.step,
}


def _profile(work: Callable[[], Ours], steps: int) -> dict[str, float]:
    """Return the share of each part of all our seconds, the steps extrapolated like these."""
    profiler = cProfile.Profile()
    profiler.enable()
    ours = work()
    profiler.disable()
    seconds = {entry.code: entry.totaltime for entry in profiler.getstats()}
    parts = {name: seconds[inspect.unwrap(part).__code__] for name, part in _PARTS.items()}
    whole = ours.features + ours.tune
    shares = {
        name: (spent if name == "features" else spent * _STEPS / steps) / whole
        for name, spent in parts.items()
    }
    return shares | {"other": 1 - sum(shares.values())}


def _print(results: dict[str, dict[str, Any]]) -> None:
    title = f"{len(_NAMES)} classes of {_SHOTS} images, {_EPOCHS} epochs, one thread, medians"
    times = Table("s", *results, title=title)
    for name, label in _LABELS.items():
        values = [result["median"][name] for result in results.values()]
        times.add_row(label, *[f"{value:,.1f}" for value in values])
    shares = Table("share of ours", *results)
    for part in [*_PARTS, "other"]:
        values = [result["shares_of_ours"][part] for result in results.values()]
        shares.add_row(part, *[f"{value:.1%}" for value in values])
    Console().print(times, shares)


_LABELS = {
    "reference_s": "the reference's way, extrapolated",
    "features_s": "ours: features of an empty store",
    "tune_s": "ours: tuning on features",
    "ours_s": "ours, whole",
    "ratio": "ratio",
}


if __name__ == "__main__":
    typer.run(main)
