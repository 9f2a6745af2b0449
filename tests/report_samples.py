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
from models.evaluation.proportions import proportion
from models.evaluation.results import Basis
from models.findings.finding import Finding, ImageRef, summaries
from models.imaging import View
from models.language import phrase
from models.learning_curve import ClassCurve, CurvePoint, Estimate, LearningCurve, PowerLaw
from models.recipe import Recipe
from models.report import Heat, Mistake, ReportData
from models.search.result import Choice, Importance, SearchResult, TrialRecord
from models.trust.metrics import AlphaPoint, Calibration, ReliabilityBin, TrustMetrics

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
        linear_probe=evaluate((20 * features @ text.T).softmax(dim=1).roll(2, 0), labels, basis),
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
    return Mistake(
        name=name,
        label=label,
        predicted=predicted,
        probability=probability,
        thumbnail=b"\xff\xd8\xff\xd9",
    )


def sample_extras() -> dict[str, Any]:
    """Return what the metrics of a tuning of three classes hold where all was measured."""
    share = proportion(44, 50)
    bins = [
        ReliabilityBin(
            low=step / 10,
            high=(step + 1) / 10,
            count=step,
            confidence=(step + 0.5) / 10,
            accuracy=acc,
        )
        for step, acc in zip(range(10), (0, 0, 0, 0.2, 0.3, 0.5, 0.6, 0.8, 0.8, 0.9), strict=True)
    ]
    trust = TrustMetrics(
        basis="out-of-fold",
        n_images=50,
        temperature=1.7,
        before=Calibration(ece=0.12, bins=bins),
        after=Calibration(ece=0.034, bins=bins),
        alpha=0.1,
        coverage=share,
        per_class_coverage=[share, share, None],
        pooled=["stain"],
        mean_set_size=1.24,
        set_sizes=[1, 40, 9],
        decided=proportion(41, 50),
        decided_accuracy=proportion(40, 41),
        unlike=proportion(1, 50),
        reasons={"certain": 41, "mixed_roles": 8, "photograph_dark": 1, "budget": 0},
        calibration_groups={"ok": 17, "ng": 33},
        curve=[
            AlphaPoint(
                alpha=alpha,
                n_images=50,
                decided=proportion(count, 50),
                decided_accuracy=proportion(right, count),
            )
            for alpha, count, right in (
                (0.02, 2, 2),
                (0.05, 20, 20),
                (0.1, 41, 40),
                (0.2, 46, 43),
                (0.3, 48, 44),
                (0.5, 40, 38),
            )
        ],
    )
    ref = ImageRef(sha256="c" * 64, name="stain/0007.png", label="stain", split="train")
    pair = phrase("finding.pair", first="stain/0007.png", second="good/0001.png")
    twice = Finding.told(
        [phrase("finding.exact_duplicate.labels", images=pair, labels=["good", "stain"])],
        [phrase("fix.copies.labels")],
        kind="exact_duplicate",
        severity="serious",
        images=[ref, ref.model_copy(update={"name": "good/0001.png", "label": "good"})],
    )
    named = phrase("finding.image", name="stain/0008.png", label="stain")
    blurred = Finding.told(
        [phrase("finding.blur.said", image=named)],
        [phrase("fix.blur")],
        kind="blur",
        severity="note",
    )
    return {
        "trust": trust,
        "findings": summaries([twice, blurred]),
        "learning_curve": sample_curve(),
        "search": sample_search(),
    }


def sample_curve() -> LearningCurve:
    """Return a learning curve of three classes, the last with too few images to tell."""
    points = [CurvePoint(images=n, error=0.5 * n**-0.5) for n in (2, 4, 8, 16)]
    gain = Estimate(value=0.021, low=0.004, high=0.05)
    known = {
        "points": points,
        "fit": PowerLaw(floor=0.0, scale=0.5, exponent=0.5),
        "accuracy_now": Estimate(value=0.875, low=0.8, high=0.92),
        "accuracy_then": Estimate(value=0.9, low=0.82, high=0.95),
        "gain": gain,
        "macro_gain": gain,
    }
    classes = [
        ClassCurve(name="good", images=16, groups=16, sentence="It would rise.", **known),
        ClassCurve(name="表面のきず 🔥", images=16, groups=16, sentence="It would rise.", **known),
        ClassCurve(name="stain", images=2, groups=2, sentence="Too few to tell."),
    ]
    return LearningCurve(
        more=10, stand_in="a linear probe", classes=classes, next_class=1, sentence="Next."
    )


def sample_search() -> SearchResult:
    """Return a search of four recipes, the third pruned."""
    macros = (0.8, 0.82, None, 0.85)
    trials = [
        TrialRecord(
            number=number,
            state="pruned" if macro is None else "complete",
            params={"lr": 0.1 * (number + 1)},
            macro=macro,
            best_so_far=macro,
            seconds=3.0,
        )
        for number, macro in enumerate(macros)
    ]
    choice = Choice(
        number=3, best=3, gain=0.05, standard_error=0.01, needed=0.02, reason="More than noise."
    )
    return SearchResult(
        minutes=5,
        max_trials=None,
        spent_seconds=65,
        n_images=48,
        n_folds=3,
        trials=trials,
        best=3,
        choice=choice,
        importance=[Importance(name="lr", share=0.75), Importance(name="n_ctx", share=0.25)],
    )


def with_extras(data: ReportData, **extras: Any) -> ReportData:
    """Return the report of an artifact whose metrics hold `extras` besides."""
    metrics = data.header.metrics.model_copy(update=extras)
    return replace(data, header=data.header.model_copy(update={"metrics": metrics}))


def heated(one: Mistake, *, hottest_first: float = 0.4, chance: float = 0.6) -> Mistake:
    """Return the mistake with a heat map that fares so."""
    heat = Heat(
        picture=b"\xff\xd8\xff\xd9",
        way="grad-cam",
        hottest_first=hottest_first,
        random=(chance, chance),
    )
    return one.model_copy(update={"heat": heat})
