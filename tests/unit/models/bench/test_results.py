import json
from pathlib import Path

import pytest

from models.bench.cells import Cell, list_cells
from models.bench.results import (
    BackboneMeta,
    Meta,
    ResultFile,
    harmonic_mean,
    read_results,
)
from models.errors import ArtifactMismatch, BadInput
from tests.unit.models.bench.conftest import result

META = Meta(
    versions={"python": "3"},
    backbone=BackboneMeta(name="tiny", digest="sha256:1", embed_dim=16, precision="fp32"),
    device="cpu",
    cpu="one",
    gpu=None,
    threads=1,
    date="2026-01-01T00:00:00+00:00",
    command="shotline bench",
    datasets={"parts": "sha256:2"},
)


@pytest.fixture
def plan() -> list[Cell]:
    return list_cells(["parts"], "few-shot", ["coop", "mi"], [4], [1.0], [1, 2])


def test_the_form_of_the_file(tmp_path: Path, plan: list[Cell]) -> None:
    path = tmp_path / "out.json"
    ResultFile(path, META, plan).add([result()])
    content = json.loads(path.read_text())
    assert list(content) == ["meta", "results"]
    (row,) = content["results"]
    assert " ".join(row) == (
        "dataset protocol method recipe shots tau seed n_classes n_train n_test top1 macro"
        " tail_macro worst_class base novel h nc ece seconds peak_mb"
    )
    assert list(row["nc"]) == [
        *("text_nc2", "image_nc2", "text_to_image_nc3", "nc1", "nc4", "lc", "mi")
    ]
    assert list(row["seconds"]) == ["features", "tune", "test"]
    assert row["tail_macro"] is None


def test_what_stands_in_the_file_is_not_lacking(tmp_path: Path, plan: list[Cell]) -> None:
    path = tmp_path / "out.json"
    ResultFile(path, META, plan).add([result("coop", seed=1)])
    again = ResultFile(path, META, plan)
    assert [again.lacks(cell) for cell in plan] == [False, True, True, True]


def test_rows_stand_in_the_order_of_the_cells(tmp_path: Path, plan: list[Cell]) -> None:
    file = ResultFile(tmp_path / "out.json", META, plan)
    file.add([result("mi", seed=2)])
    file.add([result("kept", seed=9), result("coop", seed=1), result("mi", seed=1)])
    rows = [(row.method, row.seed) for row in file.content.results]
    assert rows == [("kept", 9), ("coop", 1), ("mi", 1), ("mi", 2)]


def test_a_cell_with_targets_needs_all_its_rows(tmp_path: Path) -> None:
    plan = list_cells(["a", "b"], "domain", ["coop"], [4], [1.0], [1])
    file = ResultFile(None, META, plan)
    file.add([result(dataset="a", protocol="domain")])
    assert file.lacks(plan[0])
    file.add([result(dataset="a->b", protocol="domain")])
    assert not file.lacks(plan[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"backbone": META.backbone.model_copy(update={"digest": "sha256:9"})},
            "sha256:1.*sha256:9",
        ),
        ({"device": "cuda"}, "computed on cpu fp32, and this is cuda fp32"),
        ({"datasets": {"parts": "sha256:9"}}, "other images, classes or groups .* 'parts'"),
    ],
)
def test_results_that_do_not_belong_together(
    tmp_path: Path, plan: list[Cell], change: dict[str, object], words: str
) -> None:
    path = tmp_path / "out.json"
    ResultFile(path, META, plan).add([result()])
    before = path.read_bytes()
    with pytest.raises(ArtifactMismatch, match=words):
        ResultFile(path, META.model_copy(update=change), plan)
    assert path.read_bytes() == before


def test_another_set_can_be_added(tmp_path: Path, plan: list[Cell]) -> None:
    path = tmp_path / "out.json"
    ResultFile(path, META, plan).add([result()])
    more = META.model_copy(update={"datasets": {"textile": "sha256:3"}})
    file = ResultFile(path, more, [])
    assert file.content.meta.datasets == {"parts": "sha256:2", "textile": "sha256:3"}


@pytest.mark.parametrize("text", ["", "[]", '{"meta": {}}', "{"])
def test_a_file_of_something_else_is_not_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "out.json"
    path.write_text(text)
    with pytest.raises(BadInput, match="holds no results of shotline bench"):
        ResultFile(path, META, [])
    assert path.read_text() == text


def test_results_are_read_back(tmp_path: Path, plan: list[Cell]) -> None:
    file = ResultFile(tmp_path / "out.json", META, plan)
    file.add([result(recipe={"template": "a photo of a {}."}, macro=1 / 3)])
    assert read_results(tmp_path / "out.json") == file.content


@pytest.mark.parametrize(
    ("base", "novel", "h"),
    [(0.5, 0.5, 0.5), (1.0, 0.5, 2 / 3), (0.0, 0.0, 0.0), (0.8, None, None), (None, 0.8, None)],
)
def test_harmonic_mean(base: float | None, novel: float | None, h: float | None) -> None:
    assert harmonic_mean(base, novel) == (None if h is None else pytest.approx(h))
