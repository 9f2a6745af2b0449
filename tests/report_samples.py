"""Reports of models that were never tuned: any number of classes, in no time."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch.nn.functional import normalize

from models.artifact import Artifact, ArtifactHeader, TuningMetrics
from models.classes import ClassSpec, default_role
from models.collapse.metrics import collapse_metrics
from models.collapse.regularizers import class_means
from models.evaluation.metrics import evaluate
from models.evaluation.results import Basis
from models.imaging import View
from models.recipe import Recipe
from models.report import Mistake, ReportData

PER_CLASS = 6
DIM = 48


def sample_report(
    names: Sequence[str], *, basis: Basis = "holdout", recipe: Recipe | None = None, **facts: Any
) -> ReportData:
    """Return a report of `len(names)` classes; `facts` as `ReportData.from_artifact` takes them."""
    return ReportData.from_artifact(sample_artifact(names, basis, recipe or Recipe()), **facts)


def sample_artifact(names: Sequence[str], basis: Basis, recipe: Recipe) -> Artifact:
    """Return an artifact with features drawn at random around well separated class means."""
    k, generator = len(names), torch.Generator().manual_seed(len(names))
    labels = torch.arange(k).repeat_interleave(PER_CLASS)
    centres = torch.eye(k, max(k, DIM))
    features = normalize(
        centres[labels] + 0.1 * torch.randn(len(labels), max(k, DIM), generator=generator), dim=1
    )
    text = normalize(centres + 0.3, dim=1)
    before = normalize(centres + 2.0, dim=1)
    history = [
        {"epoch": e, "step": 3 * e, "loss": 2 / e, "ce": 1 / e, "lc": 0.5 / e, "mi": 1 / e}
        | {"text_nc2": 1 / e, "text_to_image_nc3": 1.2 / e}
        for e in range(1, 11)
    ]
    metrics = TuningMetrics(
        tuned=evaluate((20 * features @ text.T).softmax(dim=1), labels, basis),
        zero_shot=evaluate((2 * features @ before.T).softmax(dim=1).roll(1, 0), labels, basis),
        collapse_before=collapse_metrics(before, features, labels),
        collapse_after=collapse_metrics(text, features, labels),
        history=history,
        seconds={"features": 3.2, "tune": 6.5, "evaluate": 61.0},
    )
    header = ArtifactHeader(
        backbone="local-dir:models/starter",
        backbone_digest="sha256:" + "a" * 64,
        classes=[ClassSpec(name=n, prompt_name=n, role=default_role(n)) for n in names],
        recipe=recipe,
        seed=7,
        view=View(),
        snapshot="sha256:" + "b" * 64,
        n_train=[PER_CLASS] * k,
        logit_scale=100.0,
        metrics=metrics,
        created=datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        shotline="0.1.0",
        made_on="x86_64 AVX2, fp32, PyTorch 2.14.1",
    )
    tensors = {
        "class_embeddings": text,
        "class_means": class_means(features, labels, k),
        "ctx": torch.zeros(4, 8),
        "text_features": text,
        "zero_shot_features": before,
    }
    return Artifact(header, {name: tensor.numpy() for name, tensor in tensors.items()})


def with_confusion(data: ReportData, confusion: list[list[int]]) -> ReportData:
    """Return the report with a test of these counts, `confusion[true][predicted]`."""
    true, predicted = [], []
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            true += [i] * count
            predicted += [j] * count
    probabilities = torch.eye(len(confusion))[predicted]
    return replace(data, test=evaluate(probabilities, torch.tensor(true), "holdout"))


def mistake(
    label: str, predicted: str, *, name: str = "cam3/0001.png", probability: float = 0.8
) -> Mistake:
    """Return a mistake whose thumbnail is as much of a JPEG as the page looks at."""
    return Mistake(name, label, predicted, probability, b"\xff\xd8\xff\xd9")
