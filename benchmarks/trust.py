"""What decisions are worth: coverage, calibration, what is left undecided, and what is no part.

Run with `python -m benchmarks.trust`; three quarters of an hour on one core, most of it tuning.
What was tuned is kept under `build/trust` and not tuned again, so that it can be stopped.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import roc_auc_score

from benchmarks.common import write_results
from benchmarks.trust_data import CACHE, CachedSet, Seen, cached
from benchmarks.trust_figures import draw_figures
from models.artifact import Artifact, read_artifact, write_artifact
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.classes import ClassSpec
from models.dataset import Dataset, LabelledImage
from models.decision import decide
from models.evaluation.splits import cross_validation_folds, draw_shots
from models.features import FeatureKey, MemoryFeatureStore, feature_space
from models.imaging import View
from models.recipe import Recipe
from models.trust.calibration import calibrated, calibration
from models.trust.conformal import one_per_group
from models.trust.curve import ALPHAS
from models.trust.evidence import Evidence, read_evidence
from models.trust.folds import FoldModels, MainModel, TrainingImages, trust
from models.trust.judge import Judge
from models.trust.outliers import excess, mean_energy
from models.trust.photograph import STATISTICS_VERSION, PhotographStatistics
from models.trust.policy import Budget, DecisionPolicy, can_hold
from models.tuning import Tuning

SETS = ("xsdd", "magnetic_tile", "elpv", "textile")
OTHER = "clothing10"
NAME, SHOTS, SPLITS = "trust", 16, 40
BUDGET = 0.05
FIGURES = Path("docs/figures/trust")
_SAMPLE = 200  # images of another set
_CURVE = 400  # images of a curve

Images = list[tuple[Evidence, PhotographStatistics]]


class Tuned(NamedTuple):
    """A tuned model, and the images of its set that it was not tuned on."""

    artifact: Artifact
    judge: Judge
    test: list[int]

    @property
    def classes(self) -> list[ClassSpec]:
        """The classes that it knows."""
        return self.artifact.header.classes

    def look(self, seen: Seen, which: Sequence[int] | None = None) -> Images:
        """Return what the model says of images."""
        rows = slice(None) if which is None else list(which)
        features, statistics = seen.features[rows], seen.statistics[rows]
        scale, reduced = self.artifact.header.logit_scale, self.artifact.reduced()
        assert reduced is not None  # noqa: S101 - it was tuned with folds
        logits = scale * (features @ self.artifact.class_embeddings.T)
        return [
            (read_evidence(own, rest, scale), PhotographStatistics(*map(float, photograph)))
            for own, rest, photograph in zip(
                logits, reduced.products(features), statistics, strict=True
            )
        ]


def main(
    sets: Annotated[str, typer.Option(help="Some of them.")] = ",".join(SETS),
    splits: Annotated[int, typer.Option(min=2, help="Draws of each set.")] = SPLITS,
    left_out: Annotated[bool, typer.Option(help="Also leave each defect class out.")] = True,
    only_tune: Annotated[bool, typer.Option("--only-tune", help="Measure later.")] = False,
) -> None:
    """Measure and write `benchmarks/results/trust.json`, with plots in `docs/figures/trust`."""
    load = functools.cache(lambda: load_backbone(STARTER))
    data = {one: cached(one, load) for one in (*SETS, OTHER)}
    data |= {one: cached(one, load) for one in sets.split(",") if one not in data}
    cells: dict[str, Any] = {}
    todo = list(_cells(sets.split(","), splits, data, left_out=left_out))
    for cell in track(todo, "Tuning"):
        tune(cell, data[cell.name], load)
    if only_tune:
        return
    for cell in track(todo, "Measuring"):
        cells[cell.key] = _measure(cell, data, tune(cell, data[cell.name], load))
    found = summaries(cells)
    write_results(NAME, {"shots": SHOTS, "summary": found, "cells": cells})
    draw_figures(found, cells, FIGURES)
    _print(found)


class _Cell(NamedTuple):
    """A draw of a set, and the class that is left out."""

    name: str
    seed: int
    without: int | None = None

    @property
    def key(self) -> str:
        """Its name in the result."""
        return f"{self.name}/{self.seed if self.without is None else f'without {self.without}'}"


def _cells(
    sets: Sequence[str], splits: int, data: dict[str, CachedSet], *, left_out: bool
) -> Iterator[_Cell]:
    for seed in range(1, splits + 1):
        for one in sets:
            yield _Cell(one, seed)
    for one in sets if left_out else ():
        classes = data[one].dataset.classes
        for label, spec in enumerate(classes):
            if spec.role == "ng" and len(classes) > 2:
                yield _Cell(one, 1, label)


def _measure(cell: _Cell, data: dict[str, CachedSet], tuned: Tuned) -> dict[str, Any]:
    if cell.without is None:
        return _split(cell.name, cell.seed, data, tuned)
    return _without(data[cell.name], cell.without, tuned)


def tune(cell: _Cell, found: CachedSet, load: Callable[[], Backbone]) -> Tuned:
    """Tune on 16 images of each class, but of one class on none and without knowing of it.

    What was tuned before is read again; the rule is fit anew, by the code as it is.
    """
    dataset, seed, without = found.dataset, cell.seed, cell.without
    places = [i for i, image in enumerate(dataset.images) if image.label != without]
    images = [dataset.images[place] for place in places]
    groups = [image.group for image in images]
    drawn, left = draw_shots([image.label for image in images], groups, SHOTS, seed)
    keep = [label for label in range(len(dataset.classes)) if label != without]
    train = [
        LabelledImage(i.sha256, keep.index(i.label), i.group, "train", i.read, i.name)
        for i in (images[index] for index in drawn)
    ]
    recipe = Recipe(threads=1)
    path = CACHE / "tuned" / recipe.digest[-8:] / f"{cell.name}-{seed}-{without}.safetensors"
    if not path.exists():
        backbone = load()
        tuning = Tuning(
            [dataset.classes[label] for label in keep],
            train,
            backbone,
            recipe,
            seed=seed,
            view=View(),
            store=_store(dataset, found.seen, backbone),
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_artifact(tuning.run(), path)
    rows = [places[index] for index in drawn]
    artifact = _fit_again(read_artifact(path), train, found.seen, rows)
    judge = artifact.judge()
    assert judge is not None  # noqa: S101 - it was tuned with folds
    return Tuned(artifact, judge, [places[index] for index in left])


def _fit_again(
    artifact: Artifact, train: Sequence[LabelledImage], seen: Seen, rows: Sequence[int]
) -> Artifact:
    """Fit the decision rule to the fold models that the artifact carries."""
    header, kept = artifact.header, artifact.fold_embeddings
    assert kept is not None  # noqa: S101 - it was tuned with folds
    labels, groups = [image.label for image in train], [image.group for image in train]
    n_folds = header.recipe.n_folds(len(header.classes), len(train))
    folds = cross_validation_folds(labels, groups, n_folds, header.seed)
    embeddings = (kept.rows * kept.scales[:, None]).reshape(len(folds), len(header.classes), -1)
    images = TrainingImages(
        seen.features[list(rows)],
        np.array(labels),
        groups,
        [image.sha256 for image in train],
        seen.statistics[list(rows)],
    )
    model = MainModel(
        artifact.class_embeddings, artifact.tensors["class_means"], header.logit_scale
    )
    models = FoldModels([test for _, test in folds], embeddings)
    fitted = trust(header.classes, images, model, models, None, DecisionPolicy())
    metrics = header.metrics.model_copy(update={"trust": fitted.metrics})
    again = header.model_copy(update={"rule": fitted.rule, "metrics": metrics})
    return Artifact(again, artifact.tensors | fitted.tensors)


def _store(dataset: Dataset, seen: Seen, backbone: Backbone) -> MemoryFeatureStore:
    store, spec, view = MemoryFeatureStore(), backbone.pixels, View().digest
    space, other = feature_space(backbone), f"{STATISTICS_VERSION} {spec.size} {spec.interpolation}"
    for image, feature, statistics in zip(
        dataset.images, seen.features, seen.statistics, strict=True
    ):
        store.put(FeatureKey(image.sha256, space, view), torch.from_numpy(feature))
        store.put(FeatureKey(image.sha256, other, view), torch.from_numpy(statistics))
    return store


def _split(name: str, seed: int, data: dict[str, CachedSet], tuned: Tuned) -> dict[str, Any]:
    found = data[name]
    test = tuned.look(found.seen, tuned.test)
    labels = np.array([found.dataset.images[index].label for index in tuned.test])
    groups = [found.dataset.images[index].group for index in tuned.test]
    digests = [found.dataset.images[index].sha256 for index in tuned.test]
    alone = one_per_group(labels.tolist(), groups, digests)
    some = np.random.default_rng(seed).permutation(len(test))[:_CURVE]
    sample = [test[index] for index in some]
    logits = np.stack([evidence.logits for evidence, _ in test])
    temperature = tuned.judge.temperature
    return {
        "n_test": len(test),
        "n_groups": len(alone),
        "temperature": temperature,
        "accuracy": float((logits.argmax(axis=1) == labels).mean()),
        "coverage": _coverage(tuned, test, labels),
        "coverage_of_groups": _coverage(tuned, [test[i] for i in alone], labels[alone]),
        "curve": [_point(tuned, sample, labels[some], alpha) for alpha in ALPHAS],
        "budget": _budget(tuned, sample, labels[some]),
        "calibration": {
            "before": calibration(calibrated(logits, 1.0), labels).model_dump(exclude={"bins"}),
            "after": calibration(calibrated(logits, temperature), labels).model_dump(),
        },
        "outliers": _outliers(tuned, test, name, data),
        "seconds": tuned.artifact.header.metrics.seconds,
    }


def _without(found: CachedSet, label: int, tuned: Tuned) -> dict[str, Any]:
    """Look what becomes of the images of a defect class that was left out of tuning."""
    test = tuned.look(found.seen, tuned.test)
    never = [i for i, image in enumerate(found.dataset.images) if image.label == label]
    unknown = tuned.look(found.seen, never)
    decisions = [_decision(tuned, one, DecisionPolicy()) for one in unknown]
    return {
        "class": found.dataset.classes[label].name,
        "n": len(unknown),
        "unlike": _apart(_strangeness(tuned, test), _strangeness(tuned, unknown)),
        "undecidable": float(np.mean([made.decision == "undecidable" for made in decisions])),
        "ng": float(np.mean([made.decision == "ng" for made in decisions])),
        "ok": float(np.mean([made.decision == "ok" for made in decisions])),
    }


def _decision(
    tuned: Tuned, one: tuple[Evidence, PhotographStatistics], policy: DecisionPolicy
) -> Any:
    evidence, photograph = one
    return decide(tuned.classes, evidence, judge=tuned.judge, policy=policy, photograph=photograph)


def _coverage(tuned: Tuned, test: Images, labels: np.ndarray) -> dict[str, Any]:
    made = [_decision(tuned, one, DecisionPolicy()) for one in test]
    names = [spec.name for spec in tuned.classes]
    held = np.array([names[y] in d.prediction_set for d, y in zip(made, labels, strict=True)])
    return {
        "marginal": float(held.mean()),
        "of_classes": [float(held[labels == label].mean()) for label in range(len(names))],
        "set_size": float(np.mean([len(d.prediction_set) for d in made])),
        "decided": float(np.mean([d.decision != "undecidable" for d in made])),
        "reasons": {r: sum(d.reason == r for d in made) for r in sorted({d.reason for d in made})},
    }


def _point(tuned: Tuned, test: Images, labels: np.ndarray, alpha: float) -> dict[str, float | None]:
    made = [_decision(tuned, one, DecisionPolicy(alpha=alpha)) for one in test]
    roles = [tuned.classes[label].role for label in labels]
    right = [
        d.decision == role
        for d, role in zip(made, roles, strict=True)
        if d.decision != "undecidable"
    ]
    return {
        "alpha": alpha,
        "undecided": 1 - len(right) / len(test),
        "accuracy": float(np.mean(right)) if right else None,
    }


def _budget(tuned: Tuned, test: Images, labels: np.ndarray) -> dict[str, float] | None:
    """Return how many ng parts a budget of 5 % lets pass; None where too few calibrate."""
    rule = tuned.artifact.header.rule
    if rule is None or not can_hold(BUDGET, rule.groups("ng")):
        return None
    policy = DecisionPolicy(budget=Budget(missed_ng=BUDGET))
    made = [_decision(tuned, one, policy) for one in test]
    bad = [d for d, y in zip(made, labels, strict=True) if tuned.classes[y].role == "ng"]
    return {
        "missed": float(np.mean([d.decision == "ok" for d in bad])),
        "decided": float(np.mean([d.decision != "undecidable" for d in made])),
    }


def _outliers(tuned: Tuned, test: Images, name: str, data: dict[str, CachedSet]) -> dict[str, Any]:
    others = {other: data[other].seen for other in (*SETS, OTHER) if other != name}
    own = _strangeness(tuned, test)
    refused = {"good": float((own["all"] > 1).mean())}
    apart = {}
    for kind, seen in (others | data[name].spoilt).items():
        rows = np.random.default_rng(0).permutation(len(seen.features))[:_SAMPLE].tolist()
        strange = _strangeness(tuned, tuned.look(seen, rows))
        refused[kind] = float((strange["all"] > 1).mean())
        apart[kind] = _apart(own, strange)
    return {"refused": refused, "apart": apart}


def _strangeness(tuned: Tuned, images: Images) -> dict[str, np.ndarray]:
    outliers = tuned.judge.outliers
    assert outliers is not None  # noqa: S101 - 16 images of each class are enough
    rule = outliers.rule
    measures: dict[str, list[float]] = {"all": [], "distance": [], "energy": [], "photograph": []}
    for evidence, photograph in images:
        assert evidence.fold_logits is not None and evidence.nearest is not None  # noqa: PT018, S101
        away = outliers.photograph_distance(photograph)
        measures["all"].append(outliers.strangeness(evidence, photograph))
        measures["distance"].append(excess(1 - evidence.nearest, rule.distance))
        measures["energy"].append(excess(mean_energy(evidence.fold_logits, rule), rule.energy))
        measures["photograph"].append(excess(away, rule.photograph))
    return {kind: np.array(values) for kind, values in measures.items()}


def _apart(good: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return AUROC of each measure, and of all the good images refused where 95 % of others are."""
    truth = np.r_[np.zeros(len(good["all"])), np.ones(len(other["all"]))]
    auroc = {kind: roc_auc_score(truth, np.r_[good[kind], other[kind]]) for kind in good}
    threshold = np.quantile(other["all"], 0.05)
    return {"auroc": auroc, "fpr95": float((good["all"] >= threshold).mean())}


def summaries(cells: dict[str, Any]) -> dict[str, Any]:
    """Return means over the splits of each set."""
    found: dict[str, Any] = {}
    for one in sorted({key.split("/")[0] for key in cells}):
        rows = [cells[key] for key in cells if key.startswith(f"{one}/") and "n_test" in cells[key]]
        if not rows:
            continue
        kinds = rows[0]["outliers"]["apart"]
        budgets = [row["budget"] for row in rows if row["budget"] is not None]
        found[one] = {
            "splits": len(rows),
            "accuracy": mean(row["accuracy"] for row in rows),
            "coverage": mean(row["coverage"]["marginal"] for row in rows),
            "coverage_standard_error": stdev(row["coverage"]["marginal"] for row in rows)
            / math.sqrt(len(rows)),
            "coverage_of_groups": mean(row["coverage_of_groups"]["marginal"] for row in rows),
            "coverage_of_classes": np.mean(
                [row["coverage"]["of_classes"] for row in rows], axis=0
            ).tolist(),
            "set_size": mean(row["coverage"]["set_size"] for row in rows),
            "decided": mean(row["coverage"]["decided"] for row in rows),
            "curve": [
                {
                    key: _mean(row["curve"][place][key] for row in rows)
                    for key in ("alpha", "undecided", "accuracy")
                }
                for place in range(len(ALPHAS))
            ],
            "missed_at_budget": mean(b["missed"] for b in budgets) if budgets else None,
            "ece": {
                when: mean(row["calibration"][when]["ece"] for row in rows)
                for when in ("before", "after")
            },
            "auroc": {
                kind: mean(row["outliers"]["apart"][kind]["auroc"]["all"] for row in rows)
                for kind in kinds
            },
            "fpr95": {
                kind: mean(row["outliers"]["apart"][kind]["fpr95"] for row in rows)
                for kind in kinds
            },
            "refused": {
                kind: mean(row["outliers"]["refused"][kind] for row in rows)
                for kind in ("good", *kinds)
            },
        }
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of what there is; None where nothing was decided anywhere."""
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _print(found: dict[str, Any]) -> None:
    table = Table("Set", "splits", "accuracy", "coverage", "worst, best class", "set", "decided",
                  "missed", "ECE", "ECE after")  # fmt: skip
    for name, row in found.items():
        worst, best = min(row["coverage_of_classes"]), max(row["coverage_of_classes"])
        missed = row["missed_at_budget"]
        table.add_row(
            name,
            str(row["splits"]),
            *(f"{row[key]:.3f}" for key in ("accuracy", "coverage")),
            f"{worst:.3f}, {best:.3f}",
            *(f"{row[key]:.2f}" for key in ("set_size", "decided")),
            "-" if missed is None else f"{missed:.3f}",
            *(f"{row['ece'][when]:.3f}" for when in ("before", "after")),
        )
    Console().print(table)
    for name, row in found.items():
        shown = {
            kind: f"{row['auroc'][kind]:.3f}/{row['fpr95'][kind]:.2f}" for kind in row["auroc"]
        }
        Console().print(name, f"refused {row['refused']['good']:.3f}", shown)


if __name__ == "__main__":
    typer.run(main)
