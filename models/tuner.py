"""The training loop of text-only prompt tuning, on cached image features.

Nothing is trained but the context tokens, and nothing is run but the text tower on one prompt per
class: image features are constant, so a step is that and a `(batch, dim) x (dim, n_classes)`
product.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.checkpoint import RunCheckpoint, RunIdentity
from models.errors import BadRecipe
from models.loss import EpochRecord, Loss, LossTerms
from models.methods.guide import guide_of
from models.prompts.coop import CoOp
from models.recipe import Recipe
from models.threads import fixed_threads
from models.training_set import TrainingSet


@runtime_checkable
class Callback(Protocol):
    """Called by the loop at the end of every epoch; may raise `Cancelled` to stop it."""

    def on_epoch(self, tuner: "Tuner", record: EpochRecord) -> None:
        """Look at the tuner: progress, checkpoint, early stop."""


class Tuner:
    """Tunes context tokens for one training set.

    Bit for bit reproducible on a CPU from recipe, training set and generator, and from a
    checkpoint.

    Args:
        backbone: frozen; its text tower carries the gradient.
        data: image features and labels.
        recipe: the hyperparameters.
        generator: draws the initial context and the batches; on the CPU.
        callbacks: called at the end of each epoch.
        checkpoint: go on from here.

    Raises:
        BadRecipe: the recipe does not fit the classes.
        CheckpointMismatch: the checkpoint is of another run.
    """

    def __init__(
        self,
        backbone: Backbone,
        data: TrainingSet,
        recipe: Recipe,
        generator: torch.Generator,
        *,
        callbacks: Sequence[Callback] = (),
        checkpoint: RunCheckpoint | None = None,
    ) -> None:
        self.identity = RunIdentity.of(
            recipe.digest, backbone.digest, data.prompt_names, data.features, data.labels, generator
        )
        self.recipe = recipe
        self.history: list[EpochRecord] = []
        # The same as plain values: a checkpoint is due every epoch, and must not grow dearer.
        self._plain_history: list[dict[str, Any]] = []
        self.epoch = self.step = 0
        self._backbone, self._generator, self._callbacks = backbone, generator, callbacks
        self._features, self._labels = (x.to(backbone.device) for x in (data.features, data.labels))
        self.prompts = CoOp(backbone, data.prompt_names, recipe, generator)
        self._optimizer = torch.optim.SGD(
            [self.prompts.ctx], recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
        )
        with fixed_threads(recipe.threads):
            self._loss = Loss(backbone, data, recipe)
            self._guide = guide_of(recipe, backbone, data)
        if checkpoint is not None:
            self._resume(checkpoint)

    def run(self) -> Float[Tensor, "n_classes embed_dim"]:
        """Tune to the end and return the L2-normalised text features, on the CPU.

        Raises:
            BadRecipe: the loss or the context tokens grew beyond all numbers.
        """
        with fixed_threads(self.recipe.threads):
            while self.step < self.recipe.steps:
                order = torch.randperm(len(self._labels), generator=self._generator)
                for batch in order.split(self.recipe.batch_size)[: self.recipe.steps - self.step]:
                    terms, guide = self._update(batch.to(self._labels.device))
                self.epoch += 1
                record = terms.record(self.epoch, self.step, guide)
                self._check_finite(record)
                self._note(record)
                for callback in self._callbacks:
                    callback.on_epoch(self, record)
            return self.text_features()

    @torch.no_grad()
    def text_features(self) -> Float[Tensor, "n_classes embed_dim"]:
        """Return the L2-normalised text features of the prompts as they are now, on the CPU."""
        with fixed_threads(self.recipe.threads):
            return normalize(self._backbone.text(self.prompts()), dim=-1).cpu()

    def checkpoint(self) -> RunCheckpoint:
        """Return where the tuning stands; only exact at the end of an epoch."""
        return RunCheckpoint(
            identity=self.identity,
            epoch=self.epoch,
            step=self.step,
            ctx=self.prompts.ctx.detach().clone(),
            momentum=self._momentum(),
            generator=self._generator.get_state(),
            history=list(self._plain_history),
        )

    def _update(self, batch: Int[Tensor, " b"]) -> tuple[LossTerms, Tensor]:
        text, features = self._backbone.text(self.prompts()), self._features[batch]
        terms = self._loss(normalize(text, dim=-1), features, self._labels[batch])
        guide = self._guide.term(text, features)
        self._guide.backward(terms.total, guide, self.prompts.ctx)
        self._optimizer.param_groups[0]["lr"] = _learning_rate(self.recipe, self.step)
        self._optimizer.step()
        self.step += 1
        return terms, guide

    def _note(self, record: EpochRecord) -> None:
        self.history.append(record)
        self._plain_history.append(asdict(record))

    def _momentum(self) -> Tensor:
        """Return SGD's buffer; it keeps none where the recipe's momentum is 0."""
        buffer = self._optimizer.state[self.prompts.ctx].get("momentum_buffer")
        return torch.zeros_like(self.prompts.ctx) if buffer is None else buffer.clone()

    def _check_finite(self, record: EpochRecord) -> None:
        if math.isfinite(record.loss) and bool(self.prompts.ctx.isfinite().all()):
            return
        raise BadRecipe(
            f"The tuning diverged: the loss is {record.loss} after {self.step} steps with"
            f" lr {self.recipe.lr}.",
            fix="Lower lr, weight_decay or the weights of the regularisers.",
            field="lr",
        )

    @torch.no_grad()
    def _resume(self, checkpoint: RunCheckpoint) -> None:
        checkpoint.check(self.identity)
        self.epoch, self.step = checkpoint.epoch, checkpoint.step
        self.prompts.ctx.copy_(checkpoint.ctx)
        self._optimizer.state[self.prompts.ctx]["momentum_buffer"] = checkpoint.momentum.to(
            self._backbone.device
        )
        self._generator.set_state(checkpoint.generator)
        for record in checkpoint.history:
            self._note(EpochRecord(**record))


def _learning_rate(recipe: Recipe, step: int) -> float:
    """Linear warm-up, then half a cosine down to 0."""
    if step < recipe.warmup_steps:
        return recipe.lr * (step + 1) / (recipe.warmup_steps + 1)
    done = (step - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    return recipe.lr * (1 + math.cos(math.pi * done)) / 2
