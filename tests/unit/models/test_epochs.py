"""The loop of the tuners in epochs, its learning rate, and its loss."""

import math
from itertools import chain
from typing import Any

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from models.collapse import regularizers
from models.collapse.etf import fit_etf
from models.errors import BadRecipe, Cancelled
from models.methods.collapse_loss import CollapseLoss
from models.methods.epoch_recipe import EpochRecipe
from models.methods.epochs import learning_rate, run_epochs
from models.training_set import TrainingSet
from tests.unit.models.deep_towers import deep_backbone
from tests.unit.models.matrices import random_matrix


def run(
    *, callbacks: Any = (), n_images: int = 10, seed: int = 0, **values: Any
) -> tuple[Tensor, list[list[int]]]:
    """Bring one number to 3; return it, and the batches that were drawn."""
    recipe = EpochRecipe(**({"epochs": 3, "lr": 0.1, "momentum": 0.0} | values))
    number, batches = nn.Parameter(torch.zeros(())), []

    def objective(batch: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        batches.append(batch.tolist())
        return (number - 3).square()

    run_epochs(
        [number], objective, n_images, recipe, torch.Generator().manual_seed(seed), callbacks
    )
    return number.detach(), batches


def test_an_epoch_is_every_image_once() -> None:
    _, batches = run(batch_size=4)

    assert [len(batch) for batch in batches] == [4, 4, 2] * 3
    epochs = [list(chain(*batches[start : start + 3])) for start in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert run(batch_size=4)[1] == batches
    assert run(batch_size=4, seed=1)[1] != batches


def test_an_epoch_may_be_cut_short() -> None:
    _, batches = run(batch_size=4, steps_per_epoch=2)
    assert [len(batch) for batch in batches] == [4] * 6


def test_a_step_is_plain_sgd() -> None:
    number, _ = run(epochs=1, warmup_epochs=0, weight_decay=0.0, n_images=4)
    # From 0 along the gradient 2·(0 - 3).
    assert float(number) == pytest.approx(0.1 * 6)


def test_the_learning_rate_is_dassls() -> None:
    recipe = EpochRecipe(epochs=4, lr=0.5)
    rates = [learning_rate(recipe, epoch) for epoch in range(1, 5)]

    # Warm-up, then (1 + cos(π·i/4)) / 2 of the rate.
    assert rates == pytest.approx([1e-5, 0.5, 0.25 * (1 + math.sqrt(0.5)), 0.25])
    assert learning_rate(EpochRecipe(epochs=1, warmup_epochs=0, lr=0.5), 1) == 0.5


def test_callbacks_hear_of_every_epoch_and_may_stop_it() -> None:
    heard: list[tuple[int, float]] = []
    run(callbacks=[lambda epoch, loss: heard.append((epoch, loss))], n_images=4)
    assert [epoch for epoch, _ in heard] == [1, 2, 3]
    assert heard[0][1] == pytest.approx(9.0)
    assert heard[2][1] < heard[0][1]

    def stop(epoch: int, loss: float) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        run(callbacks=[stop])


def test_a_tuning_that_diverges_is_refused() -> None:
    with pytest.raises(
        BadRecipe, match=r"diverged: the mean loss of epoch \d+ is .* lr 90"
    ) as caught:
        run(lr=90.0, epochs=60)
    assert caught.value.field == "lr"


@pytest.mark.parametrize(("warmup", "epochs"), [(1, 1), (5, 3)])
def test_a_warm_up_that_leaves_nothing_is_refused(warmup: int, epochs: int) -> None:
    with pytest.raises(BadRecipe, match=f"warmup_epochs is {warmup}, .* {epochs} epochs"):
        EpochRecipe(warmup_epochs=warmup, epochs=epochs)


# The loss: two images of class 0 and one of class 2 under four classes.
LABELS = torch.tensor([0, 0, 2])
DATA = TrainingSet(["a", "b", "c", "d"], torch.zeros(6, 16), torch.tensor([0, 0, 0, 1, 2, 2]))
TEXT = normalize(random_matrix(4, 16, 1).float(), dim=1)
MEANS = normalize(random_matrix(4, 16, 2).float(), dim=1)
PRESENT = torch.tensor([True, False, True, False])
LOGITS = random_matrix(3, 4, 3).float()


def loss(texts: Any = (TEXT,), **values: Any) -> Tensor:
    recipe = EpochRecipe(**values)
    return CollapseLoss(deep_backbone(), DATA, recipe)(LOGITS, LABELS, texts, MEANS, PRESENT)


def test_as_published_it_is_cross_entropy() -> None:
    torch.testing.assert_close(loss(), cross_entropy(LOGITS, LABELS))


def test_each_term_adds_exactly_itself() -> None:
    plain = loss()
    terms: list[tuple[dict[str, Any], Tensor]] = [
        ({"lc_weight": 2.0}, 2 * regularizers.lc_gram(TEXT)),
        ({"mi_weight": 3.0}, 3 * regularizers.mi_point(TEXT, MEANS, PRESENT)),
        ({"mi_weight": 3.0, "mi_form": "gram"}, 3 * regularizers.mi_gram(TEXT, MEANS, PRESENT)),
    ]
    for values, term in terms:
        torch.testing.assert_close(loss(**values), plain + term)
    everything = loss(lc_weight=2.0, mi_weight=3.0)
    torch.testing.assert_close(everything, plain + terms[0][1] + terms[1][1])


def test_logit_adjustment_is_the_logarithm_of_the_class_frequencies() -> None:
    # 3, 1, 2 and 0 of 6 images; the class without an image counts as if it had one.
    prior = torch.tensor([3 / 6, 1 / 6, 2 / 6, 1 / 6]).log()
    adjusted = cross_entropy(LOGITS + 0.5 * prior, LABELS)
    torch.testing.assert_close(loss(logit_adjustment=0.5), adjusted)


def test_the_anchored_form_starts_from_the_hand_written_phrase() -> None:
    texts = [f"a photo of a {name}." for name in DATA.prompt_names]
    frame = fit_etf(deep_backbone().encode_texts(texts))
    term = regularizers.lc_anchored(TEXT, frame)
    torch.testing.assert_close(loss(lc_weight=2.0, lc_form="anchored"), loss() + 2 * term)
    bare = fit_etf(deep_backbone().encode_texts([f"{name}." for name in DATA.prompt_names]))
    torch.testing.assert_close(
        loss(lc_weight=2.0, lc_form="anchored", ctx_init=None),
        loss() + 2 * regularizers.lc_anchored(TEXT, bare),
    )


def test_texts_of_several_images_are_averaged() -> None:
    other = TEXT.flip(0)
    one, two = (loss(texts=[t], lc_weight=1.0, mi_weight=1.0) for t in (TEXT, other))
    torch.testing.assert_close(
        loss(texts=torch.stack([TEXT, other]), lc_weight=1.0, mi_weight=1.0), (one + two) / 2
    )
