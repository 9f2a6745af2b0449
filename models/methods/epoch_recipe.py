"""The hyperparameters that the tuners outside the service have in common."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import BadRecipe

# What several recipes declare again, with another default.
Tokens = Annotated[int, Field(ge=1, le=64)]
Depth = Annotated[int, Field(ge=1, le=100)]
Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=1, le=4096)]
LearningRate = Annotated[float, Field(gt=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1000)]


class EpochRecipe(BaseModel):
    """Hyperparameters of a tuner that is run in epochs, as the reference code of these methods is.

    SGD, momentum and weight decay are the defaults of Dassl, which that code stands on, and so is
    the learning rate's course, see `models.methods.epochs`. The collapse regularisers and logit
    adjustment are off, as published.

    Attributes:
        n_ctx: number of context tokens of the text tower.
        ctx_init: the phrase before the class name. Its first `n_ctx` tokens are where the context
            starts from, and the rest stays as it is.
        epochs: rounds over the training set.
        steps_per_epoch: gradient steps of a round; as many as the images fill where `None`.
        batch_size: images per step.
        lr: learning rate at its highest.
        warmup_epochs: at first, at a learning rate of 1e-5.
        momentum: of SGD.
        weight_decay: on all that is learnt.
        lc_weight: weight of language-modality collapse, see `models.collapse.regularizers`.
        lc_form: rotation-free `gram`, or `anchored` to one fixed simplex ETF.
        mi_weight: weight of multi-modality isomorphism.
        mi_form: `point` (every class to its own image mean) or `gram` (cosines alone).
        logit_adjustment: factor of log class frequency added to the logits in training.
        threads: CPU threads in tuning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_ctx: Tokens = 4
    ctx_init: str | None = "a photo of a"
    epochs: Epochs = 10
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None
    batch_size: BatchSize = 4
    lr: LearningRate = 0.002
    warmup_epochs: Annotated[int, Field(ge=0)] = 1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    lc_weight: Weight = 0.0
    lc_form: Literal["gram", "anchored"] = "gram"
    mi_weight: Weight = 0.0
    mi_form: Literal["point", "gram"] = "point"
    logit_adjustment: Annotated[float, Field(ge=0, le=10)] = 0.0
    threads: Annotated[int, Field(ge=1, le=256)] = 2

    @model_validator(mode="after")
    def _check_warmup(self) -> "EpochRecipe":
        if self.warmup_epochs >= self.epochs:
            raise BadRecipe(
                f"warmup_epochs is {self.warmup_epochs}, which leaves nothing of {self.epochs}"
                " epochs.",
                fix="Warm up for fewer epochs than there are.",
                field="warmup_epochs",
            )
        return self
