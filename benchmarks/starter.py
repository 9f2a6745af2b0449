"""Measures the starter backbone on ImageNet validation images: ``python -m benchmarks.starter``.

Zero-shot top-1 of 1,000 images (20 classes, data set `imagenet_val20`) among their 20 names and
among all 1,000, beside the limit: what the image tower's own ImageNet classifier gets on the same
images. With ``--held-out FOLDER`` also the accuracy of a student that never read the names of 100
classes (``python -m models.starter.build --hold-out-names --out FOLDER``). Needs the extra
``starter`` for the limit.
"""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
import typer
from open_clip import IMAGENET_CLASSNAMES, SIMPLE_IMAGENET_TEMPLATES
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.files import file_sha256
from models.memory import keep_freed_memory
from models.starter.teacher import load_classifier, project_classifier

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "starter.json"
BATCH_SIZE = 50
PROMPTS: Mapping[str, Sequence[Callable[[str], str]]] = {
    "a photo of a {}.": [lambda name: f"a photo of a {name}."],
    "{}": [lambda name: name],
    "open_clip's 7 simple templates": list(SIMPLE_IMAGENET_TEMPLATES),
}
WIDTHS = (256, 280)  # of the first text tower and of the present one
PACKAGES = ("open_clip_torch", "timm", "torch")
WEIGHTS_NAME = "open_clip_model.safetensors"

app = typer.Typer(add_completion=False)
Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Images:
    """The benchmark's images: files in order and their ImageNet class, 0 to 999."""

    paths: Sequence[Path]
    labels: Tensor

    @property
    def classes(self) -> list[int]:
        """The classes that occur, in order."""
        return sorted(set(self.labels.tolist()))


class Backbone:
    """A backbone from a folder, loaded with plain open_clip, in evaluation mode."""

    def __init__(self, folder: Path) -> None:
        source = f"local-dir:{folder}"
        model, preprocess = open_clip.create_model_from_pretrained(source)
        self.model = model.eval()
        self.preprocess: Preprocess = preprocess
        self._tokenizer = open_clip.get_tokenizer(source)

    def image_features(self, images: Images, title: str) -> Tensor:
        """Normalised features of all images, `(n_images, dim)`, with a progress bar."""
        return normalize(run_tower(self.model.visual, self.preprocess, images, title), dim=1)

    @torch.inference_mode()
    def text_features(
        self, names: Sequence[str], templates: Sequence[Callable[[str], str]]
    ) -> Tensor:
        """Mean of the normalised features over the templates, normalised; `(n_names, dim)`."""
        rows = []
        for start in range(0, len(names), BATCH_SIZE):
            part = names[start : start + BATCH_SIZE]
            tokens = self._tokenizer([template(name) for name in part for template in templates])
            features = normalize(self.model.encode_text(tokens), dim=1)
            rows.append(features.reshape(len(part), len(templates), -1).mean(dim=1))
        return normalize(torch.cat(rows), dim=1)


def find_images(data: Path, per_class: int | None = None) -> Images:
    """The images of `imagenet_val20`, whose folders are named `n02111889_Samoyed`."""
    folder = data / "imagenet_val20"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is no folder: set SHOTLINE_DATA to where the data set imagenet_val20 lies"
        )
    synsets = list(ImageNetInfo("imagenet-1k").label_descriptions(as_dict=True))
    found = [
        (path, synsets.index(directory.name.split("_")[0]))
        for directory in sorted(folder.iterdir())
        for path in sorted(directory.iterdir())[:per_class]
    ]
    return Images([path for path, _ in found], torch.tensor([label for _, label in found]))


@torch.inference_mode()
def run_tower(tower: nn.Module, preprocess: Preprocess, images: Images, title: str) -> Tensor:
    """What `tower` says of every image, `(n_images, dim)`, with a progress bar."""
    outputs = []
    for start in track(range(0, len(images.paths), BATCH_SIZE), description=title):
        paths = images.paths[start : start + BATCH_SIZE]
        batch = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths])
        outputs.append(tower(batch))
    return torch.cat(outputs)


def top1(logits: Tensor, labels: Tensor, among: Sequence[int]) -> float:
    """Percentage of images whose highest logit among the classes `among` is the right one.

    `logits` is `(n_images, 1000)`. Images of other classes do not count.
    """
    columns = torch.tensor(among)
    counted = torch.isin(labels, columns)
    predicted = columns[logits[counted][:, columns].argmax(dim=1)]
    return 100.0 * (predicted == labels[counted]).double().mean().item()


def accuracies(logits: Tensor, images: Images) -> dict[str, float]:
    """Top-1 among the names of the images' own classes and among all 1,000 names."""
    return {
        "among_20": top1(logits, images.labels, images.classes),
        "among_1000": top1(logits, images.labels, range(logits.shape[1])),
    }


def calibration(logits: Tensor, labels: Tensor, bins: int = 15) -> dict[str, float]:
    """Mean highest probability and expected calibration error of 1,000-way logits, in percent."""
    confidence, predicted = logits.softmax(dim=1).double().max(dim=1)
    hits = (predicted == labels).double()
    member = (confidence * bins).long().clamp_max(bins - 1)
    gaps = [((confidence[member == b] - hits[member == b]).sum().abs()).item() for b in range(bins)]
    return {
        "mean_confidence": 100.0 * confidence.mean().item(),
        "expected_calibration_error": 100.0 * sum(gaps) / len(hits),
    }


def measure_limit(
    backbone: Backbone, features: Tensor, images: Images
) -> dict[str, dict[str, float]]:
    """What the image tower can reach: its own classifier, and the same rows as text features.

    A text tower of some width has features in as many dimensions: rows cut to those that hold most
    of them are what it could learn.
    """
    classifier = load_classifier()
    logits = run_tower(classifier, backbone.preprocess, images, "Classifier")
    embed_dim = backbone.model.visual.head.proj.out_features
    projection = project_classifier(classifier, embed_dim)
    bias = classifier.get_parameter("classifier.bias").detach()
    ideal = features @ projection.rows.T
    return {
        "own classifier": accuracies(logits, images),
        "own classifier without its bias": accuracies(logits - bias, images),
        "its rows as text features": accuracies(ideal, images),
        **{
            f"its rows in their best {width} dimensions": accuracies(
                features @ cut(projection.rows, width).T, images
            )
            for width in WIDTHS
        },
    }


def cut(rows: Tensor, dimensions: int) -> Tensor:
    """The rows, `(n, dim)`, in the subspace that holds most of them, normalised."""
    basis = torch.linalg.svd(rows, full_matrices=False).Vh[:dimensions]
    return normalize(rows @ basis.T @ basis, dim=1)


def measure_zero_shot(backbone: Backbone, features: Tensor, images: Images) -> dict[str, Any]:
    """Zero-shot accuracy for each way to prompt, and the calibration of the photo prompt."""
    cosines = {
        prompt: features @ backbone.text_features(IMAGENET_CLASSNAMES, templates).T
        for prompt, templates in PROMPTS.items()
    }
    scale = backbone.model.logit_scale.exp().item()
    photo = scale * cosines["a photo of a {}."]
    return {
        "prompts": {prompt: accuracies(cosine, images) for prompt, cosine in cosines.items()},
        "scale": scale,
        "calibration": calibration(photo, images.labels),
    }


def measure_held_out(folder: Path, images: Images) -> dict[str, Any]:
    """Zero-shot accuracy of a student on classes whose names it never read, photo prompt."""
    report = json.loads((folder / "build_report.json").read_text(encoding="utf-8"))
    held_out = report["held_out_classes"]
    unread = sorted(set(images.classes) - set(held_out))
    if unread:
        raise ValueError(
            f"the student in {folder} has read the names of the classes {unread}: "
            "build it with --hold-out-names"
        )
    backbone = Backbone(folder)
    features = backbone.image_features(images, "Held out")
    text = backbone.text_features(IMAGENET_CLASSNAMES, PROMPTS["a photo of a {}."])
    logits = features @ text.T
    return {
        "recipe": report["recipe"],
        "seed": report["seed"],
        "held_out_classes": held_out,
        "among_20_held_out": top1(logits, images.labels, images.classes),
        "among_100_held_out": top1(logits, images.labels, held_out),
        "among_1000": top1(logits, images.labels, range(logits.shape[1])),
        "sha256": file_sha256(folder / WEIGHTS_NAME),
    }


def processor() -> str:
    """The processor's name, as Linux gives it, and the number of its cores in use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def meta(weights: Path) -> dict[str, Any]:
    """Where the figures come from: versions, weights, command, date, processor."""
    return {
        "command": shlex.join(["python", "-m", "benchmarks.starter", *map(shown, sys.argv[1:])]),
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": processor(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "sha256": file_sha256(weights),
    }


def shown(argument: str) -> str:
    """An argument without the folders of this machine."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def tables(result: Mapping[str, Any]) -> list[Table]:
    """The result as tables to print."""
    table = Table("top-1, %", "among 20 names", "among 1,000 names", title="imagenet_val20")
    for section in (result["limit"], result["zero_shot"]["prompts"]):
        for name, row in section.items():
            table.add_row(name, f"{row['among_20']:.1f}", f"{row['among_1000']:.1f}")
        table.add_section()
    if not (held := result.get("held_out")):
        return [table]
    columns = {
        "among 20 held-out names": held["among_20_held_out"],
        "among 100 held-out names": held["among_100_held_out"],
        "among 1,000 names": held["among_1000"],
    }
    unread = Table("top-1, %", *columns, title="A student that never read these names")
    unread.add_row("a photo of a {}.", *(f"{value:.1f}" for value in columns.values()))
    unread.add_row("chance", "5.0", "1.0", "0.1")
    return [table, unread]


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Folder of the backbone.")] = ROOT / "models/starter",
    held_out: Annotated[
        Path | None, typer.Option(help="Folder of a student built with --hold-out-names.")
    ] = None,
    data: Annotated[
        Path, typer.Option(envvar="SHOTLINE_DATA", help="Folder of the data sets.")
    ] = ROOT / "../shared/data",
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = RESULT,
) -> None:
    """Print the starter's accuracy and write it to a JSON file.

    Without --held-out, the figures of the held-out names that the file has are kept.
    """
    keep_freed_memory()
    images = find_images(data)
    backbone = Backbone(model)
    known = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    features = backbone.image_features(images, "Image tower")
    result = {
        "limit": measure_limit(backbone, features, images),
        "zero_shot": measure_zero_shot(backbone, features, images),
        "held_out": known.get("held_out"),
        "n_images": len(images.paths),
        "meta": meta(model / WEIGHTS_NAME),
    }
    if held_out:
        result["held_out"] = {
            **measure_held_out(held_out, images),
            "meta": meta(held_out / WEIGHTS_NAME),
        }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(*tables(result))


if __name__ == "__main__":
    app()
