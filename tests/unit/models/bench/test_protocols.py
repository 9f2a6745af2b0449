from collections import Counter

import pytest

from models.bench.cells import Cell, is_target, list_cells
from models.bench.data import BenchSet
from models.bench.draws import class_counts, draw
from models.bench.protocols import base_classes, check_cells, episode
from models.errors import BadDataset
from tests.unit.models.bench.conftest import drawn_set


def cell(protocol: str = "few-shot", *targets: str, shots: int = 2, tau: float = 1.0) -> Cell:
    values = {"dataset": "drawn", "protocol": protocol, "targets": targets, "method": "coop"}
    return Cell.model_validate(values | {"shots": shots, "tau": tau, "seed": 1})


def counts_of(data: BenchSet, indices: list[int]) -> list[int]:
    counts = Counter(data.labels[index] for index in indices)
    return [counts[label] for label in range(len(data.dataset.classes))]


# ------------------------------------------------------------------ counts


@pytest.mark.parametrize(
    ("n_classes", "n_max", "tau", "counts"),
    [
        (4, 16, 1.0, [16, 16, 16, 16]),
        (4, 16, 0.06, [16, 6, 2, 1]),  # 16 * 0.06^(1/3) = 6.26, 2.45, 0.96
        (4, 16, 0.25, [16, 10, 6, 4]),  # 16 * 0.25^(1/3) = 10.08, 6.35, 4
        (3, 16, 0.25, [16, 8, 4]),
        (5, 16, 0.0625, [16, 8, 4, 2, 1]),
        (2, 16, 0.06, [16, 1]),
        (2, 10, 0.3, [10, 3]),  # 10 * 0.3 is 3, whatever its rounding
        (4, 1, 0.06, [1, 1, 1, 1]),
    ],
)
def test_counts_by_rank(n_classes: int, n_max: int, tau: float, counts: list[int]) -> None:
    for seed in (1, 2):
        assert sorted(class_counts(n_classes, n_max, tau, seed), reverse=True) == counts


def test_the_seed_hands_out_the_ranks() -> None:
    orders = {tuple(class_counts(6, 16, 0.06, seed)) for seed in range(10)}
    assert len(orders) > 5
    assert class_counts(6, 16, 0.06, 3) == class_counts(6, 16, 0.06, 3)


def test_ranks_do_not_depend_on_tau_or_n_max() -> None:
    def order(counts: list[int]) -> list[int]:
        return sorted(range(len(counts)), key=lambda label: -counts[label])

    assert order(class_counts(4, 16, 0.06, 3)) == order(class_counts(4, 64, 0.25, 3))


# ------------------------------------------------------------------ draws


def test_train_validation_and_test_are_apart() -> None:
    data = drawn_set(30, 20, 25)
    drawn = draw(data, [16, 3, 8], 16, seed=1)
    assert counts_of(data, drawn.train) == [16, 3, 8]
    assert counts_of(data, drawn.validation) == [4, 4, 4]
    assert counts_of(data, drawn.test) == [10, 13, 13]
    assert sorted(drawn.train + drawn.validation + drawn.test) == list(range(75))


def test_validation_is_not_larger_than_shots() -> None:
    data = drawn_set(10, 10)
    assert counts_of(data, draw(data, [1, 1], 1, seed=1).validation) == [1, 1]


def test_draws_of_a_seed_are_nested() -> None:
    data = drawn_set(30, 30)
    few, many = (set(draw(data, [n, n], n, seed=2).train) for n in (4, 16))
    assert few < many
    assert draw(data, [4, 4], 4, seed=3).train != sorted(few)


def test_a_fifth_of_a_class_stays_for_the_test() -> None:
    data = drawn_set(10, 3, 2)
    drawn = draw(data, [16, 16, 16], 16, seed=1)
    assert counts_of(data, drawn.train) == [8, 2, 1]
    assert drawn.validation == []
    assert counts_of(data, drawn.test) == [2, 1, 1]


def test_a_group_is_on_one_side() -> None:
    groups = {(0, n): f"tile {n // 3}" for n in range(12)} | {(1, 0): "tile 0"}
    data = drawn_set(12, 6, groups=groups)
    for seed in range(10):
        drawn = draw(data, [4, 2], 4, seed)
        sides = [{data.groups[i] for i in side} for side in (drawn.train, drawn.test)]
        assert not sides[0] & sides[1]
        assert counts_of(data, drawn.train) == [4, 2]
        assert min(counts_of(data, drawn.test)) >= 1


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (drawn_set(5, 1), r"'class 1' has 1 image\(s\) of 1 part"),
        (drawn_set(5, 3, groups={(1, n): "one" for n in range(3)}), r"3 image\(s\) of 1 part"),
    ],
)
def test_a_class_with_one_part_is_refused(data: BenchSet, words: str) -> None:
    with pytest.raises(BadDataset, match=words) as caught:
        draw(data, [1, 1], 1, seed=1)
    assert "drawn" in caught.value.problem
    assert "Add photographs of 'class 1'" in caught.value.fix


def test_a_given_split_is_kept() -> None:
    data = drawn_set(4, 5, holdout=[(0, 2), (0, 3), (1, 4)])
    drawn = draw(data, [16, 2], 16, seed=1)
    assert counts_of(data, drawn.train) == [2, 2]
    assert drawn.validation == []
    assert drawn.test == [2, 3, 8]


# ------------------------------------------------------------------ protocols


def test_few_shot() -> None:
    data = drawn_set(12, 12, 12, 12)
    drawn = episode(cell(shots=8, tau=0.1), {"drawn": data})
    assert sorted(Counter(drawn.labels).values()) == [1, 1, 3, 8]
    assert drawn.prompt_names == ["class 0", "class 1", "class 2", "class 3"]
    assert drawn.own.labels == [data.labels[index] for index in drawn.own.indices]
    assert not drawn.own.renamed
    assert (drawn.novel, drawn.targets) == (None, ())


@pytest.mark.parametrize(("n_classes", "base"), [(4, 2), (5, 3), (10, 5), (11, 6)])
def test_base_is_the_first_half_rounded_up(n_classes: int, base: int) -> None:
    assert base_classes(drawn_set(*[3] * n_classes)) == list(range(base))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_base_to_novel_needs_two_of_each(n_classes: int) -> None:
    with pytest.raises(BadDataset, match=f"{n_classes} classes; base-to-novel needs at least 4"):
        episode(cell("base-to-novel"), {"drawn": drawn_set(*[3] * n_classes)})


def test_base_to_novel() -> None:
    data = drawn_set(6, 6, 6, 6, 6)
    drawn = episode(cell("base-to-novel"), {"drawn": data})
    assert sorted(set(drawn.labels)) == [0, 1, 2]
    assert drawn.prompt_names == drawn.own.prompt_names == ["class 0", "class 1", "class 2"]
    assert {data.labels[index] for index in drawn.own.indices} == {0, 1, 2}
    assert drawn.novel is not None
    assert drawn.novel.prompt_names == ["class 3", "class 4"]
    assert drawn.novel.renamed
    assert drawn.novel.indices == list(range(18, 30))  # nothing of them is drawn
    assert drawn.novel.labels == [0] * 6 + [1] * 6


def test_cross_dataset() -> None:
    other = drawn_set(3, 2, name="other", holdout=[(0, 1), (1, 0), (1, 1)])
    sets = {"drawn": drawn_set(6, 6), "other": other, "third": drawn_set(2, 1, 1, name="third")}
    drawn = episode(cell("cross-dataset", "other", "third"), sets)
    first, second = drawn.targets
    assert first.renamed
    assert (first.indices, first.labels) == ([1, 3, 4], [0, 1, 1])  # its own test side
    assert (second.indices, second.labels) == ([0, 1, 2, 3], [0, 0, 1, 2])  # all of it


def test_domain() -> None:
    source, target = drawn_set(6, 6), drawn_set(8, 8, name="night")
    drawn = episode(cell("domain", "night", shots=3), {"drawn": source, "night": target})
    (exam,) = drawn.targets
    assert not exam.renamed
    assert exam.prompt_names == ["class 0", "class 1"]
    # Copies of what was trained on, known by their names, are no test.
    assert len(exam.indices) == 16 - 6
    trained = {source.dataset.images[index].name for index in drawn.indices}
    assert trained.isdisjoint(target.dataset.images[index].name for index in exam.indices)


def test_domains_of_other_classes_are_refused() -> None:
    sets = {"drawn": drawn_set(6, 6), "night": drawn_set(6, 6, 6, name="night")}
    with pytest.raises(BadDataset, match=r"night has the class 'class 2', and drawn does not"):
        episode(cell("domain", "night"), sets)


def test_all_cells_are_checked_before_any_is_run() -> None:
    sets = {"drawn": drawn_set(6, 6), "small": drawn_set(6, 1, name="small")}
    cells = list_cells(["drawn", "small"], "few-shot", ["coop", "mi"], [1], [1.0], [1])
    check_cells(cells[:2], sets)
    with pytest.raises(BadDataset, match="small: the class 'class 1'"):
        check_cells(cells, sets)


# ------------------------------------------------------------------ cells


def test_cells_are_every_combination() -> None:
    cells = list_cells(["a", "b"], "few-shot", ["m", "n"], [1, 2], [1.0, 0.5], [1, 2, 3])
    assert len(cells) == len({key for c in cells for key in c.keys}) == 2 * 2 * 2 * 2 * 3
    assert str(cells[0]) == "m on a (few-shot, 1 shots, tau 1, seed 1)"


def test_across_sets_the_first_is_learnt_on() -> None:
    (only,) = list_cells(["a", "b", "c"], "cross-dataset", ["m"], [4], [1.0], [1])
    assert [key.dataset for key in only.keys] == ["a", "a->b", "a->c"]
    assert [is_target(key.dataset) for key in only.keys] == [False, True, True]
