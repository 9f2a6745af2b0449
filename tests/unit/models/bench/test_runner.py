from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.backbone import Backbone
from models.bench import runner, trial
from models.bench.cells import Cell, list_cells
from models.bench.data import SourceRef
from models.bench.message import BackboneRef, BenchTask, Plan
from models.bench.protocols import episode
from models.bench.remote import RemoteBench
from models.bench.results import CellResult, Meta, ResultFile, read_results
from models.bench.runner import check_methods, parallel, run_cells, serial
from models.bench.scores import score
from models.bench.sources import read_source
from models.bench.trial import Bench, load_set, run_cell
from models.collapse.metrics import collapse_metrics
from models.errors import BadRecipe, Refused
from models.features import MemoryFeatureStore
from models.methods.method import Classifier, Linear, Method
from models.training_set import Images, TrainingSet
from tests.unit.models.bench.conftest import drawn_set

# Tuned in a moment.
QUICK = "coop+steps=5+warmup_steps=1+threads=1"


def all_same(first: Sequence[CellResult], second: Sequence[CellResult]) -> bool:
    return all(a.same_as(b) for a, b in zip(first, second, strict=True))


def one(bench: Bench, method: str, protocol: str = "few-shot", **values: Any) -> list[CellResult]:
    names = list(bench.sets)
    given = {"shots": [2], "taus": [1.0], "seeds": [1]} | values
    (cell, *_) = list_cells(names, protocol, [method], **given)  # type: ignore[arg-type]
    return run_cell(bench, cell)


# ------------------------------------------------------------------ one cell


def test_a_cell(bench: Bench) -> None:
    (row,) = one(bench, "nearest-class-mean")
    assert (row.dataset, row.n_classes, row.n_train) == ("parts", 4, 8)
    assert row.n_test == 24 - 8 - 8  # two for validation are set aside
    assert row.top1 == row.macro == row.tail_macro == row.worst_class == 1.0
    assert (row.base, row.novel, row.h) == (None, None, None)
    assert (row.nc.text_nc2, row.nc.text_to_image_nc3, row.nc.nc4) == (None, None, None)
    assert (row.nc.lc, row.nc.mi) == (None, None)
    assert row.nc.image_nc2 is not None
    assert row.nc.nc1 is not None
    assert row.peak_mb > 10


def test_collapse_is_that_of_the_training_images(bench: Bench) -> None:
    (row,) = one(bench, "zero-shot")
    (cell,) = list_cells(["parts"], "few-shot", ["zero-shot"], [2], [1.0], [1])
    loaded = bench.sets["parts"]
    drawn = episode(cell, {"parts": loaded.data})
    text = bench.backbone.encode_texts([f"a photo of a {n}." for n in drawn.prompt_names])
    features = torch.from_numpy(loaded.features)[drawn.indices]
    expected = collapse_metrics(text, features, torch.tensor(drawn.labels)).model_dump()
    assert row.nc.model_dump() == pytest.approx(
        {key: expected[key] for key in row.nc.model_dump()}, rel=1e-5
    )


def test_base_to_novel(bench: Bench) -> None:
    (row,) = one(bench, "zero-shot", "base-to-novel")
    assert row.n_classes == 2
    assert row.base == row.top1
    assert row.novel is not None
    assert row.base is not None
    assert row.h == pytest.approx(2 * row.base * row.novel / (row.base + row.novel))


def test_a_method_that_knows_no_names_has_no_novel_accuracy(bench: Bench) -> None:
    (row,) = one(bench, "nearest-class-mean", "base-to-novel")
    assert row.base == 1.0
    assert (row.novel, row.h) == (None, None)
    own, target = one(bench, "nearest-class-mean", "cross-dataset")
    assert own.macro == 1.0
    assert (target.dataset, target.n_test) == ("parts->later", 32)
    assert (target.top1, target.macro, target.worst_class, target.ece) == (None,) * 4


def test_domains_are_tested_unchanged(bench: Bench) -> None:
    own, target = one(bench, "nearest-class-mean", "domain")
    assert (own.dataset, target.dataset) == ("parts", "parts->later")
    assert target.macro == 1.0  # the same colours
    assert target.n_test == 32


def test_two_classes(backbone: Backbone, write_classes: Callable[..., Path]) -> None:
    data = read_source(SourceRef(path=write_classes("two", bolt=5, nut=5)))
    bench = Bench(backbone, {"two": load_set(data, backbone, MemoryFeatureStore())})
    (row,) = one(bench, "zero-shot")
    # NC2 of two classes is 0 and NC3 is 0 or 2, whatever the features: they say nothing.
    assert (row.nc.text_nc2, row.nc.image_nc2, row.nc.text_to_image_nc3) == (None, None, None)
    assert row.nc.lc is not None


def test_more_classes_than_a_frame_has_room_for(backbone: Backbone) -> None:
    """The embedding has 16 dimensions: of 18 classes no simplex frame exists."""
    data = drawn_set(*[3] * 18, name="many")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(54, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    bench = Bench(backbone, {"many": trial.LoadedSet(data, features, 0.0)})
    (row,) = one(bench, "zero-shot")
    assert row.nc.text_nc2 is not None
    assert row.nc.text_nc2 > 0
    with pytest.raises(BadRecipe, match="No simplex ETF of 18 classes"):
        one(bench, "coop+lc+lc_form=anchored")


def test_scores_by_hand() -> None:
    logits = torch.eye(3)[[0, 0, 1, 1, 0, 2]]
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    found = score(logits, labels, [5, 3, 1])
    assert found.top1 == pytest.approx(4 / 6)
    assert found.macro == pytest.approx((1 + 0.5) / 2)  # no image of the third class
    assert found.tail_macro == 0.5
    assert found.worst_class == 0.5
    assert score(logits, labels, [5, 4, 1]).tail_macro is None
    assert score(logits, labels, ()).tail_macro is None


# ------------------------------------------------------------------ many cells


def test_a_run(bench: Bench, results: ResultFile, cells: list[Cell]) -> None:
    seen: list[tuple[int, int]] = []
    run_cells(cells, results, serial(bench), lambda *done: seen.append(done))
    assert seen == [(done, 8) for done in range(9)]
    assert [row.key for row in results.content.results] == [k for c in cells for k in c.keys]


def test_a_run_that_was_killed_goes_on(
    bench: Bench, meta: Meta, cells: list[Cell], tmp_path: Path
) -> None:
    whole = ResultFile(tmp_path / "whole.json", meta, cells)
    run_cells(cells, whole, serial(bench))
    path = tmp_path / "killed.json"

    def killed(pending: Sequence[Cell]) -> Generator[tuple[Cell, list[CellResult]], None, None]:
        yield from serial(bench)(pending[:3])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells(cells, ResultFile(path, meta, cells), killed)
    assert len(read_results(path).results) == 3

    ran: list[Cell] = []

    def counting(pending: Sequence[Cell]) -> Generator[tuple[Cell, list[CellResult]], None, None]:
        ran.extend(pending)
        return serial(bench)(pending)

    run_cells(cells, ResultFile(path, meta, cells), counting)
    assert ran == cells[3:]
    assert all_same(read_results(path).results, whole.content.results)

    def never(pending: Sequence[Cell]) -> Generator[tuple[Cell, list[CellResult]], None, None]:
        raise AssertionError(pending)

    run_cells(cells, ResultFile(path, meta, cells), never)


def test_processes_give_the_results_of_one(
    write_classes: Callable[..., Path], tiny_folder: BackboneRef, meta: Meta, cells: list[Cell]
) -> None:
    backbone = runner.load(tiny_folder)
    data = read_source(SourceRef(path=write_classes("there/parts", **dict.fromkeys("abcd", 6))))
    loaded = {"parts": load_set(data, backbone, MemoryFeatureStore())}
    coop = [cells[0].model_copy(update={"method": QUICK})]
    one_process, many = (ResultFile(None, meta, [*cells, *coop]) for _ in range(2))
    run_cells([*cells, *coop], one_process, serial(Bench(backbone, loaded)))
    run_cells([*cells, *coop], many, parallel(tiny_folder, loaded, 2))
    assert all_same(one_process.content.results, many.content.results)


def test_an_error_names_its_cell_and_leaves_the_rest(
    bench: Bench, results: ResultFile, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(bench: Bench, cell: Cell) -> list[CellResult]:
        if cell.method == "linear-probe":
            raise BadRecipe("The tuning diverged.", fix="Lower lr.")
        return run_cell(bench, cell)

    monkeypatch.setattr(runner, "run_cell", fails)
    with pytest.raises(BadRecipe, match=r"linear-probe on parts \(.*: The tuning diverged"):
        run_cells(cells, results, serial(bench))
    assert len(results.content.results) == 2


def test_an_error_in_a_process_is_the_same_here(
    write_classes: Callable[..., Path], tiny_folder: BackboneRef
) -> None:
    data = read_source(SourceRef(path=write_classes("there/parts", a=1, b=6)))
    loaded = {"parts": load_set(data, runner.load(tiny_folder), MemoryFeatureStore())}
    cells = list_cells(["parts"], "few-shot", ["zero-shot"], [2], [1.0], [1])
    with pytest.raises(runner.ShotlineError, match="the class 'a' has 1 image") as caught:
        list(parallel(tiny_folder, loaded, 2)(cells))
    assert caught.value.field == "a"
    assert str(cells[0]) in caught.value.problem


def test_another_backbone_is_refused(tiny_folder: BackboneRef) -> None:
    with pytest.raises(Refused, match="sha256:0 is wanted"):
        runner.load(tiny_folder.model_copy(update={"digest": "sha256:0"}))


# ------------------------------------------------------------------ pixels


@dataclass(frozen=True)
class OnPixels:
    """Classifies by the mean pixel; stands for methods that prompt the image tower."""

    refuses: bool = False
    needs_pixels: bool = True

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> Classifier:
        if self.refuses:
            raise BadRecipe("The image tower is no ViT.", fix="Choose a ViT.")
        assert data.pixels is not None
        means = _mean_pixels(data.pixels(torch.arange(len(data.labels))))
        return _ByColour(torch.stack([means[data.labels == c].mean(0) for c in range(4)]))


@dataclass(frozen=True)
class _ByColour:
    colours: Tensor
    text_features: Tensor | None = None
    settings: Mapping[str, Any] = ()  # type: ignore[assignment]

    def image_features(self, images: Images) -> Tensor:
        return images.features

    def logits(self, images: Images) -> Tensor:
        assert images.pixels is not None
        found = _mean_pixels(images.pixels(torch.arange(len(images.features))))
        return -torch.cdist(found, self.colours)

    def renamed(self, prompt_names: Sequence[str]) -> None:
        return None


def _mean_pixels(pixels: Tensor) -> Tensor:
    return pixels.float().mean(dim=(2, 3))


def test_pixels_are_those_of_the_images_asked_about(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "method", lambda spec: OnPixels())
    (row,) = one(bench, "maple")
    assert row.macro == 1.0


def test_methods_that_the_backbone_cannot_run(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"fits": OnPixels(), "maple": OnPixels(refuses=True), "text": OnPixels(True, False)}
    monkeypatch.setattr(runner, "method", known.__getitem__)
    check_methods(["fits", "text"], backbone)
    with pytest.raises(BadRecipe, match=r"'maple' cannot run on 'tiny': The image tower"):
        check_methods(["fits", "maple"], backbone)


def test_stand_ins_are_methods() -> None:
    assert isinstance(OnPixels(), Method)
    assert isinstance(_ByColour(torch.eye(3)), Classifier)
    assert isinstance(Linear(torch.eye(3)), Classifier)


# ------------------------------------------------------------------ elsewhere


def test_a_cell_that_was_sent(
    write_classes: Callable[..., Path], tiny_folder: BackboneRef, cells: list[Cell]
) -> None:
    ref = SourceRef(path=write_classes("there/parts", **dict.fromkeys("abcd", 6)))
    data = read_source(ref)
    plan = Plan(sources=[ref], digests={"parts": data.digest}, backbone=tiny_folder)
    backbone = runner.load(tiny_folder)
    here = Bench(backbone, {"parts": load_set(data, backbone, MemoryFeatureStore())})
    there = RemoteBench(MemoryFeatureStore())
    for number, cell in enumerate(cells):
        message = BenchTask(run="r", number=number, cell=cell, plan=plan).model_dump_json()
        answer = there.answer(BenchTask.model_validate_json(message))
        assert (answer.number, answer.failure) == (number, None)
        assert all_same(answer.rows, run_cell(here, cell))


def test_other_data_or_another_backbone_elsewhere(
    write_classes: Callable[..., Path], tiny_folder: BackboneRef, cells: list[Cell]
) -> None:
    ref = SourceRef(path=write_classes("there/parts", **dict.fromkeys("abcd", 6)))
    there = RemoteBench(MemoryFeatureStore())
    plan = Plan(sources=[ref], digests={"parts": "sha256:0"}, backbone=tiny_folder)
    failure = there.answer(BenchTask(run="r", number=3, cell=cells[0], plan=plan)).failure
    assert failure is not None
    assert "'parts' has the digest sha256:" in failure.problem
    other = tiny_folder.model_copy(update={"digest": "sha256:0"})
    plan = plan.model_copy(update={"backbone": other})
    failure = there.answer(BenchTask(run="r", number=3, cell=cells[0], plan=plan)).failure
    assert failure is not None
    assert "sha256:0 is wanted" in failure.problem
