"""The store of class embeddings: no model is overwritten, a mixed batch is as each image alone."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Conflict
from app.predictions.embeddings import EmbeddingStore, Head, evidence
from models.decision import class_probabilities
from models.errors import DamagedArtifact
from models.trust.quantised import Quantised

DIM = 8
ROW = DIM * 4


def embeddings(rows: int, value: float = 0.0, dim: int = DIM) -> np.ndarray:
    return np.full((rows, dim), value, dtype=np.float32)


def added(store: EmbeddingStore, rows: int, value: float = 0.0) -> Head:
    head = store.add(embeddings(rows, value), 1.0)
    assert head is not None
    return head


def content(head: Head) -> np.ndarray:
    return head.arrays.full.values[head.start : head.start + head.count]


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    drawn = rng.standard_normal((rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(8))
def test_a_mixed_batch_is_what_each_image_is_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dim = 64
    store = EmbeddingStore(6000 * dim * 4)
    sizes = [2, 3, 10, 1000, *rng.integers(2, 1001, 4).tolist()]
    models = [(unit(rng, size, dim), float(rng.uniform(1, 100))) for size in sizes]
    heads = [store.add(*model) for model in models]
    chosen = rng.integers(0, len(models), int(rng.integers(1, 17)))
    features = unit(rng, len(chosen), dim)
    found = evidence(features, [head for index in chosen if (head := heads[index])])
    for feature, index, own in zip(features, chosen, found, strict=True):
        row = own.probabilities
        expected = class_probabilities(feature[None], *models[index])[0]
        assert row.shape == expected.shape
        np.testing.assert_allclose(row, expected, atol=1e-6, rtol=1e-4)


def test_probabilities_by_hand() -> None:
    store = EmbeddingStore(100)
    even = store.add(np.eye(2, dtype=np.float32), 1.0)
    three = store.add(np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32), np.log(4.0).item())
    assert even is not None
    assert three is not None
    features = np.array([[1, 1], [1, 0], [0, 0]], dtype=np.float32)
    found = evidence(features, [even, three, even])
    first, second, third = (own.probabilities for own in found)
    np.testing.assert_allclose(first, [0.5, 0.5])
    np.testing.assert_allclose(second, [4 / 9, 4 / 9, 1 / 9], rtol=1e-6)
    np.testing.assert_allclose(third, [0.5, 0.5])


def test_fold_models_and_class_means_ride_along() -> None:
    rng = np.random.default_rng(0)
    store, dim = EmbeddingStore(400 * DIM * 4), DIM
    sizes, folds = [2, 5, 3], [3, 0, 2]
    full = [unit(rng, size, dim) for size in sizes]
    reduced = [
        Quantised.of(unit(rng, (count + 1) * size, dim)) if count else None
        for size, count in zip(sizes, folds, strict=True)
    ]
    heads = [store.add(rows, 2.0, more) for rows, more in zip(full, reduced, strict=True)]
    chosen = [0, 1, 2, 0, 2]
    features = unit(rng, len(chosen), dim)
    found = evidence(features, [head for index in chosen if (head := heads[index])])
    for feature, index, own in zip(features, chosen, found, strict=True):
        np.testing.assert_allclose(own.logits, 2 * full[index] @ feature, rtol=1e-5)
        more = reduced[index]
        if more is None:
            assert own.fold_logits is own.nearest is None
            continue
        table = (more.rows * more.scales[:, None] @ feature).reshape(-1, sizes[index])
        assert own.fold_logits is not None
        np.testing.assert_allclose(own.fold_logits, 2 * table[:-1], rtol=1e-4, atol=1e-6)
        assert own.nearest == pytest.approx(table[-1].max(), rel=1e-5)


def test_both_arrays_count_against_the_limit_and_are_given_back_together() -> None:
    store = EmbeddingStore(4 * ROW)
    more = Quantised.of(embeddings(4, 1.0))
    head = store.add(embeddings(2), 1.0, more)
    assert head is not None
    assert store.used == 2 * ROW + 4 * DIM
    assert store.add(embeddings(2), 1.0) is None
    assert store.add(embeddings(1), 1.0, more) is None
    del head
    assert store.used == 0
    assert store.add(embeddings(3), 1.0, more) is not None


def test_a_range_is_free_when_nothing_holds_its_head() -> None:
    store = EmbeddingStore(4 * ROW)
    first, second = added(store, 2, 1.0), added(store, 2, 2.0)
    waiting = first  # as an image that waits for its batch does
    del first
    assert store.add(embeddings(1), 1.0) is None
    assert store.used == 4 * ROW
    del waiting
    assert store.used == 2 * ROW
    third = added(store, 2, 3.0)
    assert (content(second) == 2).all()
    assert (content(third) == 3).all()


def test_gaps_next_to_each_other_are_one() -> None:
    store = EmbeddingStore(6 * ROW)
    heads = [added(store, 2) for _ in range(3)]
    for place in (0, 2, 1):
        heads[place] = None  # type: ignore[call-overload]
        assert store.used == sum(head is not None for head in heads) * 2 * ROW
    assert added(store, 6).start == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 9), st.integers(0, 99)), max_size=80))
def test_no_model_is_ever_overwritten(steps: list[tuple[bool, int, int]]) -> None:
    store, held = EmbeddingStore(30 * ROW), list[tuple[float, Head]]()
    for number, (adds, rows, which) in enumerate(steps):
        if not adds and held:
            del held[which % len(held)]
        elif (head := store.add(embeddings(rows, number), 1.0)) is not None:
            held.append((number, head))
            del head
        assert store.used == sum(head.count for _, head in held) * ROW
        assert all((content(head) == value).all() for value, head in held)


def test_threads_that_add_and_drop() -> None:
    store = EmbeddingStore(200 * ROW)

    def work(seed: int) -> int:
        rng, wrong = np.random.default_rng(seed), 0
        held: list[tuple[float, Head]] = []
        for number in range(300):
            value = float(seed * 1000 + number)
            head = store.add(embeddings(int(rng.integers(1, 12)), value), 1.0)
            if head is None or rng.random() < 0.4:
                held = held[len(held) // 2 :]
            else:
                held.append((value, head))
            wrong += sum(not (content(head) == value).all() for value, head in held)
        return wrong

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(work, range(4))) == 0
    gc.collect()
    assert store.used == 0


def test_waiting_for_room() -> None:
    store = EmbeddingStore(2 * ROW)
    assert not store.wait(0)
    head = added(store, 2)
    with ThreadPoolExecutor(1) as thread:
        waits = thread.submit(store.wait, 30)
        del head
        assert waits.result()
    assert store.wait(-1)  # what came back stays until it is used
    added(store, 2)


def too_many() -> None:
    EmbeddingStore(3 * ROW).add(embeddings(4), 1.0)


def too_wide() -> None:
    store = EmbeddingStore(3 * ROW)
    added(store, 1)
    store.add(embeddings(1, dim=DIM + 1), 1.0)


@pytest.mark.parametrize(
    ("attempt", "error", "shown"),
    [(too_many, Conflict, "4 classes take 128 bytes"), (too_wide, DamagedArtifact, "9 wide")],
)
def test_what_never_fits(attempt: Callable[[], None], error: type[Exception], shown: str) -> None:
    with pytest.raises(error, match=shown):
        attempt()
