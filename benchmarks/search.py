"""A search of a few minutes against `auto`: `python -m benchmarks.search`.

A few images per class are drawn and searched on; `auto`, the best recipe, and the one that the rule
takes are then tuned on them and tested once on all images left. Sets that no recipe is judged on,
and strip steel. Cells that `benchmarks/results/search.json` has already are not run again.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import torch
import typer

from benchmarks.common import RESULTS, write_results
from benchmarks.sets import Encoded, encoded
from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.evaluation.splits import draw_shots
from models.features import FolderFeatureStore, MemoryFeatureStore
from models.fusion import Texts, fused_embeddings
from models.recipe import Recipe
from models.search.budget import SearchBudget
from models.search.choice import AUTO
from models.search.local import LocalSearch
from models.search.result import SearchResult
from models.search.space import recipe_of
from models.search.trial import Trials
from models.tuner import Tuner

NAME = "search"
SETS_TRIED = (("drawn_defects", 16), ("faces", 8), ("xsdd", 16), ("digits", 8))
CELLS = [(name, shots, seed) for seed in (1, 2) for name, shots in SETS_TRIED]
FIXED = {"threads": 1}


def main(
    minutes: Annotated[float, typer.Option(help="Of each search.")] = 2.0,
    store: Annotated[Path | None, typer.Option(help="A feature store to use again.")] = None,
    cells: Annotated[int, typer.Option(help="Run so many at most.")] = 1,
) -> None:
    """Run what is missing, print a summary and write the results."""
    path = RESULTS / f"{NAME}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    found: dict[str, Any] = known.get("cells", {})
    backbone = load_backbone(STARTER)
    kept = FolderFeatureStore(store) if store else MemoryFeatureStore()
    for name, shots, seed in CELLS:
        key = f"{name} {shots} seed {seed}"
        if key in found or cells == 0:
            continue
        cells -= 1
        started = time.monotonic()
        found[key] = _run(encoded(name, backbone, kept), shots, seed, minutes, backbone)
        print(f"{key}: {time.monotonic() - started:.0f} s")
        write_results(NAME, {"summary": _summary(found), "cells": found})
    print(json.dumps(_summary(found), indent=2))


def _run(
    found: Encoded, shots: int, seed: int, minutes: float, backbone: Backbone
) -> dict[str, Any]:
    drawn, rest = draw_shots(found.data.labels.tolist(), list(found.data.groups or []), shots, seed)
    part = found.data.subset(drawn)
    budget = SearchBudget.read({"minutes": minutes, "fixed": FIXED})
    search = LocalSearch(Trials(backbone, part, seed), part, budget, seed)
    taken, result = search.run()
    choice = result.choice
    best = AUTO if choice is None else choice.best
    recipes = {
        "auto": budget.auto,
        "best": recipe_of(result.trials[best].params, FIXED),
        "taken": taken,
    }
    scores: dict[Recipe, float] = {}
    for recipe in recipes.values():
        if recipe not in scores:
            scores[recipe] = _tested(found, drawn, rest, recipe, seed, backbone)
    return {
        "tested": {name: scores[recipe] for name, recipe in recipes.items()},
        "one_standard_error": _by_one_standard_error(scores, recipes, result),
        "out_of_fold": {"auto": result.trials[AUTO].macro, "best": result.trials[best].macro},
        "trials": len(result.trials),
        "pruned": sum(trial.state == "pruned" for trial in result.trials),
        "choice": None if choice is None else choice.model_dump(),
        "best_params": result.trials[best].params,
        "importance": {share.name: round(share.share, 3) for share in result.importance},
        "seconds": result.spent_seconds,
    }


def _tested(
    found: Encoded,
    drawn: Sequence[int],
    rest: Sequence[int],
    recipe: Recipe,
    seed: int,
    backbone: Backbone,
) -> float:
    """Return the macro accuracy on the images that were not drawn, in points."""
    part = found.data.subset(drawn)
    tuner = Tuner(backbone, part, recipe, torch.Generator().manual_seed(seed))
    texts = Texts(tuner.run(), found.written)
    embeddings = fused_embeddings(texts, part, recipe, backbone.logit_scale)
    labels = found.data.labels[list(rest)]
    right = (found.data.features[list(rest)] @ embeddings.T).argmax(dim=1) == labels
    n_classes = found.data.n_classes
    totals = torch.bincount(labels, minlength=n_classes)
    shares = torch.bincount(labels[right], minlength=n_classes) / totals
    return round(100 * float(shares.mean()), 3)


def _by_one_standard_error(
    scores: dict[Recipe, float], recipes: dict[str, Recipe], result: SearchResult
) -> float:
    """Return what would be tested if one standard error were enough however many were tried."""
    choice = result.choice
    beyond = choice is not None and choice.gain > choice.standard_error
    return scores[recipes["best" if beyond else "auto"]]


def _summary(cells: dict[str, Any]) -> dict[str, Any]:
    if not cells:
        return {}
    rows = list(cells.values())
    rules = {
        "auto": [row["tested"]["auto"] for row in rows],
        "taken": [row["tested"]["taken"] for row in rows],
        "one_standard_error": [row["one_standard_error"] for row in rows],
        "best": [row["tested"]["best"] for row in rows],
    }
    return {
        "cells": len(rows),
        "trials": mean(row["trials"] for row in rows),
        "taken_other_than_auto": sum((row["choice"] or {}).get("number", 0) != 0 for row in rows),
        "points": {rule: round(mean(values), 2) for rule, values in rules.items()},
    }


if __name__ == "__main__":
    typer.run(main)
