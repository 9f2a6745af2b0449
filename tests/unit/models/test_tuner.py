"""The training loop: it learns, it repeats itself bit for bit, and it goes on where it stood."""

import math
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from models import text_encoder
from models.backbone import Backbone
from models.checkpoint import Checkpoint, RunCheckpoint
from models.errors import BadDataset, BadRecipe, Cancelled, CheckpointMismatch
from models.loss import EpochRecord
from models.recipe import Recipe, TextMethod
from models.training_set import TrainingSet
from models.tuner import Callback, Tuner
from tests.unit.models.matrices import random_matrix

NAMES = ["good", "scratch", "stain"]


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    """Ten images around three centres: three epochs of three batches are nine steps."""
    labels = torch.arange(10) % 3
    centres, noise = random_matrix(3, 16, 1), random_matrix(10, 16, 2)
    features = normalize((centres[labels] + 0.3 * noise).float(), dim=1)
    return TrainingSet(NAMES, features, labels)


@pytest.fixture
def start(backbone: Backbone, data: TrainingSet, recipe: Recipe) -> Callable[..., Tuner]:
    def make(
        seed: int = 0,
        *,
        data: TrainingSet = data,
        backbone: Backbone = backbone,
        callbacks: Sequence[Callback] = (),
        checkpoint: RunCheckpoint | None = None,
        **values: Any,
    ) -> Tuner:
        changed = recipe.model_copy(update={"steps": 8} | values)
        generator = torch.Generator().manual_seed(seed)
        return Tuner(backbone, data, changed, generator, callbacks=callbacks, checkpoint=checkpoint)

    return make


class Keep:
    """Keeps the checkpoint of every epoch, through the bytes that would be stored."""

    def __init__(self) -> None:
        self.checkpoints: list[RunCheckpoint] = []

    def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
        data = Checkpoint((tuner.checkpoint(),)).to_bytes()
        self.checkpoints.append(Checkpoint.from_bytes(data).runs[0])


def same(one: Tensor, other: Tensor) -> bool:
    return one.numpy().tobytes() == other.numpy().tobytes()


@pytest.mark.parametrize("class_specific", [False, True])
def test_the_loss_falls_and_the_classes_are_told_apart(
    start: Callable[..., Tuner], data: TrainingSet, class_specific: bool
) -> None:
    tuner = start(class_specific=class_specific, steps=60, batch_size=10, lr=0.5)
    before = (data.features @ tuner.text_features().T).argmax(dim=1)
    text = tuner.run()

    losses = [record.loss for record in tuner.history]
    assert losses[-1] < 0.8 * losses[0]
    right = (data.features @ text.T).argmax(dim=1) == data.labels
    assert right.sum() > (before == data.labels).sum()
    torch.testing.assert_close(text.norm(dim=1), torch.ones(3))


def test_a_weight_moves_what_it_weighs(start: Callable[..., Tuner]) -> None:
    def last(**values: float) -> EpochRecord:
        tuner = start(steps=30, batch_size=10, lr=0.02, **values)
        tuner.run()
        return tuner.history[-1]

    assert last(mi_weight=10.0).mi < last(mi_weight=0.0).mi
    assert last(lc_weight=10.0).lc < last(lc_weight=0.0).lc


def test_epochs_and_steps_are_counted(start: Callable[..., Tuner]) -> None:
    tuner = start()
    tuner.run()

    # 10 images in batches of 4: three steps an epoch, and the last epoch is cut short.
    assert [(record.epoch, record.step) for record in tuner.history] == [(1, 3), (2, 6), (3, 8)]
    assert (tuner.epoch, tuner.step) == (3, 8)


def test_one_seed_gives_one_result_and_another_another(start: Callable[..., Tuner]) -> None:
    runs = [start(seed) for seed in (0, 0, 1)]
    texts = [tuner.run() for tuner in runs]

    assert same(texts[0], texts[1])
    assert runs[0].history == runs[1].history
    assert not same(texts[0], texts[2])


def test_the_global_seed_has_no_part_in_it(start: Callable[..., Tuner]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = start().run()
        torch.manual_seed(2)
        assert same(first, start().run())


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("values", [{}, {"momentum": 0.0}, {"class_specific": False}])
def test_a_checkpoint_of_any_epoch_leads_to_the_same_bits(
    start: Callable[..., Tuner], epoch: int, values: dict[str, Any]
) -> None:
    keep = Keep()
    whole = start(callbacks=[keep], **values)
    text = whole.run()

    resumed = start(checkpoint=keep.checkpoints[epoch - 1], **values)
    assert resumed.epoch == epoch
    assert same(resumed.run(), text)
    assert resumed.history == whole.history
    assert same(resumed.prompts.ctx.detach(), whole.prompts.ctx.detach())


def test_a_checkpoint_does_not_move_with_the_tuner(start: Callable[..., Tuner]) -> None:
    kept, taken = Keep(), []

    class Take:
        def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
            taken.append(tuner.checkpoint())

    start(callbacks=[kept, Take()]).run()
    for stored, held in zip(kept.checkpoints, taken, strict=True):
        assert stored.history == held.history
        for name in ("ctx", "momentum", "generator"):
            assert same(getattr(stored, name), getattr(held, name))


def test_a_checkpoint_of_another_run_is_refused(
    start: Callable[..., Tuner], data: TrainingSet, other_backbone: Backbone
) -> None:
    keep = Keep()
    start(callbacks=[keep]).run()
    checkpoint = keep.checkpoints[0]
    flipped = TrainingSet(NAMES, data.features.flip(0), data.labels)
    relabelled = TrainingSet(NAMES, data.features, data.labels.flip(0))
    renamed = TrainingSet([*NAMES[:2], "dirt"], data.features, data.labels)

    others: list[tuple[str, dict[str, Any]]] = [
        ("images", {"data": flipped}),
        ("images", {"data": relabelled}),
        ("prompt names", {"data": renamed}),
        ("seed", {"seed": 1}),
        ("recipe", {"lr": 0.2}),
        ("backbone", {"backbone": other_backbone}),
    ]
    for what, other in others:
        with pytest.raises(CheckpointMismatch, match=rf"it differs in {what}\."):
            start(**other, checkpoint=checkpoint)


def test_callbacks_are_called_in_order_at_the_end_of_every_epoch(
    start: Callable[..., Tuner],
) -> None:
    calls: list[tuple[str, int, int]] = []

    class Say:
        def __init__(self, name: str) -> None:
            self._name = name

        def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
            assert tuner.history[-1] is record
            calls.append((self._name, record.epoch, tuner.step))

    start(callbacks=[Say("a"), Say("b")]).run()
    assert calls == [("a", 1, 3), ("b", 1, 3), ("a", 2, 6), ("b", 2, 6), ("a", 3, 8), ("b", 3, 8)]


def test_cancelled_stops_the_loop(start: Callable[..., Tuner]) -> None:
    class Stop:
        def on_epoch(self, tuner: Tuner, record: EpochRecord) -> None:
            if record.epoch == 2:
                raise Cancelled

    tuner = start(callbacks=[Stop()])
    threads = torch.get_num_threads()
    with pytest.raises(Cancelled):
        tuner.run()
    assert (tuner.epoch, tuner.step) == (2, 6)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("method", get_args(TextMethod))
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("chunk", [1, 2])
def test_chunks_of_classes_take_the_steps_of_all_classes_at_once(
    start: Callable[..., Tuner],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    class_specific: bool,
    chunk: int,
) -> None:
    def tuned() -> tuple[Tensor, Tensor, Tensor]:
        # From a random context: at the hand-written one, ProGrad's guide is nothing but rounding.
        tuner = start(method=method, class_specific=class_specific, steps=3, ctx_init=None)
        first = tuner.text_features()
        return first, tuner.run(), tuner.prompts.ctx.detach()

    whole = tuned()
    monkeypatch.setattr(text_encoder, "CHUNK", chunk)
    torch.testing.assert_close(tuned(), whole, atol=1e-4, rtol=0)
    assert (whole[1] - whole[0]).abs().max() > 0.01


def test_chunks_of_classes_repeat_themselves_bit_for_bit(
    start: Callable[..., Tuner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_encoder, "CHUNK", 2)
    assert same(start().run(), start().run())


@pytest.mark.parametrize("threads", [1, 2])
def test_the_recipe_says_how_many_threads_run_the_text_tower(
    start: Callable[..., Tuner],
    backbone: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    seen: list[int] = []
    forward = backbone.text.forward

    def look(*args: Any, **options: Any) -> Tensor:
        seen.append(torch.get_num_threads())
        return forward(*args, **options)

    monkeypatch.setattr(backbone.text, "forward", look)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        start(threads=threads, steps=1, warmup_steps=0, lc_form="anchored").run()
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    # The anchor of the loss, the guide's prompts, the one step, and what it ends with.
    assert seen == [threads] * 4


def test_the_learning_rate_warms_up_and_falls_along_a_cosine(start: Callable[..., Tuner]) -> None:
    rates: list[float] = []
    tuner = start(steps=6, warmup_steps=2, batch_size=10, lr=0.3)
    tuner._optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append(optimizer.param_groups[0]["lr"])
    )
    tuner.run()

    # A third and two thirds of 0.3, then (1 + cos(π·i/4)) / 2 of it.
    falling = [0.3, 0.3 * (2 + math.sqrt(2)) / 4, 0.15, 0.3 * (2 - math.sqrt(2)) / 4]
    assert rates == pytest.approx([0.1, 0.2, *falling])


@pytest.mark.parametrize("lc_form", ["gram", "anchored"])
def test_one_class_is_refused(start: Callable[..., Tuner], data: TrainingSet, lc_form: str) -> None:
    one = TrainingSet(NAMES[:1], data.features, torch.zeros_like(data.labels))

    with pytest.raises(BadDataset, match="at least 2 classes"):
        start(data=one, lc_form=lc_form).run()


@pytest.mark.parametrize("mi_form", ["point", "gram"])
def test_a_fold_that_holds_one_class_of_three(
    start: Callable[..., Tuner], data: TrainingSet, mi_form: str
) -> None:
    only = data.labels == 1
    part = TrainingSet(NAMES, data.features[only], data.labels[only])

    assert start(data=part, mi_form=mi_form, mi_weight=1.0).run().isfinite().all()


@pytest.mark.parametrize("values", [{"lr": 100.0, "weight_decay": 1.0}])
def test_a_tuning_that_diverges_is_refused(
    start: Callable[..., Tuner], values: dict[str, float]
) -> None:
    keep = Keep()
    tuner = start(steps=100, callbacks=[keep], **values)

    with pytest.raises(BadRecipe, match=r"diverged: the loss is .* with lr 100\.0") as caught:
        tuner.run()
    assert caught.value.field == "lr"
    assert all(checkpoint.ctx.isfinite().all() for checkpoint in keep.checkpoints)
