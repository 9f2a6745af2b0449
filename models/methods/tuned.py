"""Text-only tuners as methods: CoOp and those that guide it, with all that goes on top."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.baselines.zero_shot import zero_shot
from models.fusion import Texts, fused_embeddings
from models.prompts.coop import CoOp
from models.recipe import Recipe, TextMethod
from models.threads import fixed_threads
from models.training_set import Images, TrainingSet
from models.tuner import Tuner

Schedule = Literal["shotline", "published"]

# What each paper's own scripts set, schedule aside. CPT's were not available to us: CoOp's stand in
# for them.
_SIXTEEN_RANDOM = {"n_ctx": 16, "ctx_init": None, "class_specific": False}
_PHOTO = {"n_ctx": 4, "ctx_init": "a photo of a", "class_specific": False}
_PLAIN = {
    "lc_weight": 0.0,
    "mi_weight": 0.0,
    "logit_adjustment": 0.0,
    "fusion": "mean",
    "alpha": 0.0,
}
PUBLISHED: Mapping[TextMethod, Mapping[str, Any]] = {
    "coop": _SIXTEEN_RANDOM | _PLAIN,
    "kgcoop": _PHOTO | _PLAIN,
    "prograd": {**_PHOTO, "n_ctx": 16} | _PLAIN,
    "cpt": _PHOTO | _PLAIN,
}
_LR, _BATCH, _KGCOOP_BATCH = 0.002, 32, 128


@dataclass(frozen=True)
class Tuned:
    """Tunes prompts by a recipe.

    Attributes:
        settings: over the defaults of `Recipe`.
        schedule: `shotline`, the steps and learning rate of the default recipe, or `published`,
            those of the method's paper (SGD at 0.002, some 50 to 200 epochs by the number of
            shots), which assume the embeddings of a large CLIP.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = "shotline"
    needs_pixels: bool = field(default=False, init=False)

    def recipe(self, data: TrainingSet) -> Recipe:
        """Return the recipe for these images; a published schedule depends on how many there are.

        Raises:
            BadRecipe: a hyperparameter is unknown or out of range.
        """
        method: TextMethod = self.settings.get("method", "coop")
        schedule = published_schedule(method, data) if self.schedule == "published" else {}
        return Recipe.read({**schedule, **self.settings})

    def fit(self, backbone: Backbone, data: TrainingSet, seed: int) -> "TunedClassifier":
        """Tune, and join the class means as the recipe says.

        Raises:
            BadRecipe: a hyperparameter is out of range, or does not fit the classes.
        """
        recipe = self.recipe(data)
        tuner = Tuner(backbone, data, recipe, torch.Generator().manual_seed(seed))
        text = tuner.run()
        texts = Texts(text, zero_shot(backbone, data.prompt_names))
        embeddings = fused_embeddings(texts, data, recipe, backbone.logit_scale)
        return TunedClassifier(backbone, recipe, tuner.prompts.ctx.detach(), text, embeddings)


@dataclass(frozen=True)
class TunedClassifier:
    """What a text-only tuner has learnt.

    Attributes:
        backbone: reads further names.
        recipe: that it was tuned with.
        ctx: the context tokens.
        text_features: of the tuned prompts.
        embeddings: what image features are multiplied with.
    """

    backbone: Backbone
    recipe: Recipe
    ctx: Tensor
    text_features: Float[Tensor, "n_classes embed_dim"]
    embeddings: Float[Tensor, "n_classes embed_dim"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The recipe."""
        return self.recipe.model_dump()

    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the features as they are."""
        return images.features

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return the scaled cosines."""
        return self.backbone.logit_scale * images.features @ self.embeddings.T

    def renamed(self, prompt_names: Sequence[str]) -> "TunedClassifier | None":
        """Read other names in the tuned context; of other classes there are no means to join.

        A context of its own for each class says nothing of others.
        """
        if self.recipe.class_specific:
            return None
        recipe = self.recipe
        with fixed_threads(recipe.threads), torch.no_grad():
            prompts = CoOp(self.backbone, prompt_names, recipe, torch.Generator())
            prompts.ctx = nn.Parameter(self.ctx, requires_grad=False)
            text = normalize(self.backbone.text(prompts()), dim=-1).cpu()
        return replace(self, text_features=text, embeddings=text)


def published_schedule(method: TextMethod, data: TrainingSet) -> dict[str, Any]:
    """Return steps and learning rate as the papers set them, for this many images.

    CoOp: 200 epochs from 8 shots, 100 from 2, 50 for one, in batches of 32; ProGrad and CPT follow
    it; KgCoOp: 100 epochs in batches of 128. The first epoch warms up linearly, and the learning
    rate changes by the step; theirs stays at 1e-5 for that epoch, and changes by the epoch.
    """
    shots = int(data.counts().max())
    epochs = 200 if shots >= 8 else 100 if shots >= 2 else 50
    batch = _BATCH
    if method == "kgcoop":
        epochs, batch = 100, _KGCOOP_BATCH
    per_epoch = -(-len(data.labels) // batch)
    return {
        "lr": _LR,
        "batch_size": batch,
        "steps": epochs * per_epoch,
        "warmup_steps": per_epoch,
    }
