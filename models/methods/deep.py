"""What the tuners that prompt both towers share: the towers, the tuning, the classifier.

They change what the image tower computes: they work on pixels, and need a VisionTransformer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from models.backbone import IMAGE_BATCH, Backbone
from models.collapse.regularizers import class_means
from models.errors import BadRecipe
from models.methods.collapse_loss import CollapseLoss
from models.methods.epoch_recipe import EpochRecipe
from models.methods.epochs import EpochEnd, run_epochs
from models.prompts.deep import DeepPrompts
from models.training_set import Images, PixelReader, TrainingSet
from models.vision_encoder import VisionEncoder


class PromptedTowers:
    """Both towers of a frozen backbone, to be driven with deep prompts.

    Args:
        backbone: frozen.
        method: the name of the method, for the errors.

    Raises:
        BadRecipe: an image tower that cannot be prompted.
    """

    def __init__(self, backbone: Backbone, method: str) -> None:
        self.backbone = backbone
        self.method = method
        self.vision = VisionEncoder(backbone, method)

    def text_features(self, prompts: DeepPrompts) -> Float[Tensor, "n_classes embed_dim"]:
        """Return the L2-normalised text features of all classes."""
        text = self.backbone.text(prompts.coop(), layers=prompts.text_layers())
        return normalize(text, dim=-1)

    def image_features(
        self, pixels: UInt8[Tensor, "b 3 size size"], prompts: DeepPrompts
    ) -> Float[Tensor, "b embed_dim"]:
        """Return the L2-normalised image features, in single precision."""
        with self.backbone.autocast():
            images = self.backbone.normalised(pixels)
            features = self.vision(images, prompts.vision_layers())
        return normalize(features.float(), dim=-1)

    def reader(self, pixels: PixelReader | None) -> PixelReader:
        """Return the reader of pixels.

        Raises:
            BadRecipe: there is none.
        """
        if pixels is not None:
            return pixels
        raise BadRecipe(
            f"{self.method} prompts the image tower and was given image features without pixels.",
            fix="Give it a reader of pixels, or use a method that works on features.",
            field="method",
        )


class Step(NamedTuple):
    """What the towers said to one batch, all L2-normalised.

    Attributes:
        batch: the indices of the images.
        text: of all classes.
        image: of the batch.
        logits: `logit_scale * image @ text.T`.
    """

    batch: Int[Tensor, " b"]
    text: Float[Tensor, "n_classes embed_dim"]
    image: Float[Tensor, "b embed_dim"]
    logits: Float[Tensor, "b n_classes"]


# A term of the loss that only one method has.
ExtraTerm = Callable[[Step], Float[Tensor, ""]]


def tune_deep(
    towers: PromptedTowers,
    prompts: DeepPrompts,
    data: TrainingSet,
    recipe: EpochRecipe,
    generator: torch.Generator,
    *,
    extra: ExtraTerm | None = None,
    callbacks: Sequence[EpochEnd] = (),
) -> None:
    """Tune prompts of both towers on pixels.

    Image features move with the prompts, so multi-modality isomorphism takes the class means of the
    batch, of the classes that are present in it, and the gradient reaches both towers.

    Raises:
        BadRecipe: no pixels, or a tuning that diverged.
    """
    read = towers.reader(data.pixels)
    loss = CollapseLoss(towers.backbone, data, recipe)
    labels = data.labels.to(towers.backbone.device)

    def objective(batch: Int[Tensor, " b"]) -> Float[Tensor, ""]:
        text = towers.text_features(prompts)
        image = towers.image_features(read(batch), prompts)
        target = labels[batch.to(labels.device)]
        logits = towers.backbone.logit_scale * image @ text.T
        means = class_means(image, target, data.n_classes)
        present = torch.bincount(target, minlength=data.n_classes) > 0
        total = loss(logits, target, [text], means, present)
        return total if extra is None else total + extra(Step(batch, text, image, logits))

    run_epochs(prompts.parameters(), objective, len(labels), recipe, generator, callbacks)


class DeepClassifier:
    """A classifier of a prompted image tower and a prompted text tower.

    Args:
        towers: of the backbone that the prompts were learnt for.
        prompts: as learnt.
        settings: see `Classifier`.
    """

    def __init__(
        self, towers: PromptedTowers, prompts: DeepPrompts, settings: Mapping[str, Any]
    ) -> None:
        self.settings = settings
        self._towers, self._prompts = towers, prompts
        with torch.no_grad():
            self._text_features = towers.text_features(prompts).cpu()

    @property
    def text_features(self) -> Float[Tensor, "n_classes embed_dim"]:
        """The L2-normalised text features of the classes."""
        return self._text_features

    @torch.no_grad()
    def image_features(self, images: Images) -> Float[Tensor, "n embed_dim"]:
        """Return the L2-normalised features of the prompted image tower, on the CPU.

        Raises:
            BadRecipe: images without pixels.
        """
        read = self._towers.reader(images.pixels)
        batches = torch.arange(len(images.features)).split(IMAGE_BATCH)
        features = [self._towers.image_features(read(b), self._prompts).cpu() for b in batches]
        return torch.cat(features)

    def logits(self, images: Images) -> Float[Tensor, "n n_classes"]:
        """Return scaled cosines between prompted image and prompted text features."""
        return (
            self._towers.backbone.logit_scale * self.image_features(images) @ self.text_features.T
        )

    def renamed(self, prompt_names: Sequence[str]) -> "DeepClassifier":
        """Return the same prompts around other class names."""
        prompts = self._prompts.renamed(self._towers.backbone, prompt_names)
        return DeepClassifier(self._towers, prompts, self.settings)
