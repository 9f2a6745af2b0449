"""The classifier that joins what the texts say of the classes with what the images show of them.

Two ways: a weighted sum of text feature and image mean, the same for every class; and the posterior
of every class's mean, in which a class of one image leans on its text and on the other classes
where one of sixteen stands for itself.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from models.collapse.regularizers import class_means
from models.evaluation.splits import cross_validation_folds
from models.recipe import Recipe
from models.training_set import TrainingSet

# The scatter within classes, of unit features, where no class has a second image to show it.
_UNKNOWN_SCATTER = 0.5
# Of what the text says of a class, more than this is never believed.
_MAX_TEXT_GAIN = 5.0
# A class's prior is never narrower than this share of the scatter of an image.
_LEAST_SPREAD = 0.02
# Posterior logits are those of a Gaussian with that many independent dimensions, which features
# have not: they are divided by a temperature that fits held-out images.
_TEMPERATURES = tuple(2.0**power for power in range(8))
_UNKNOWN_TEMPERATURE = 16.0
_TEMPERATURE_FOLDS = 4


class Texts(NamedTuple):
    """What is said of the classes, as L2-normalised text features.

    Attributes:
        tuned: of the prompts that were tuned on the training images.
        written: of the hand-written prompts, which have not seen them.
    """

    tuned: Float[Tensor, "n_classes dim"]
    written: Float[Tensor, "n_classes dim"]


def fused_embeddings(
    texts: Texts, data: TrainingSet, recipe: Recipe, logit_scale: float
) -> Float[Tensor, "n_classes dim"]:
    """Return the class embeddings that the recipe's fusion makes of texts and images.

    Args:
        texts: of the tuned prompts and of the hand-written ones.
        data: the training images.
        recipe: says how.
        logit_scale: the factor that predictions put in front of `features @ embeddings.T`.
    """
    if recipe.fusion == "mean":
        means = class_means(data.features, data.labels, data.n_classes)
        return mean_embeddings(texts.tuned, means, recipe.alpha)
    groups = data.groups or [f"{index:09}" for index in range(len(data.labels))]
    temperature = fit_temperature(texts, data, groups, recipe)
    posterior = posterior_embeddings(texts, data.features, data.labels, recipe)
    return posterior / (temperature * logit_scale)


def mean_embeddings(
    text: Float[Tensor, "n_classes dim"], means: Float[Tensor, "n_classes dim"], alpha: float
) -> Float[Tensor, "n_classes dim"]:
    """Return the classifier `w_c ∝ t_c + alpha * mu_c`, L2-normalised; `alpha` 0 is pure text.

    What isomorphism of text and image features makes possible: both live in one frame.
    """
    return normalize(text + alpha * means, dim=-1)


def posterior_embeddings(
    texts: Texts,
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"],
    recipe: Recipe,
) -> Float[Tensor, "n_classes dim"]:
    """Return class embeddings whose products with features are Gaussian log-likelihood ratios.

    Our formulation: linear discriminant analysis with a prior for everything that few images leave
    open. In a frame in which the scatter within classes is round (`Frame`, as if `prior_images`
    per dimension had shown that it is), the mean of class c is `g + k·u_c` plus a deviation of
    variance `v`, with `u_c` its centred text feature; an image lies around it with variance `s`.
    The gain `k >= 0` of the text, `g` and `v` are estimated from all classes, so that texts which
    do not fit the images are not believed; `k` on the hand-written texts, since the tuned ones
    were made to fit these very images. Then

        `M_c = p_c + a_c (m_c - p_c)`,  `p_c = g + k·u_c`,  `a_c = v / (v + s·e_c)`,
        `e_c = 1/n_c + caution·(1/n_c - 1/n_max)`

    and the logit of `z` is `z·M_c - ‖M_c‖²/2`. A class without images has `a_c = 0`: its text
    alone. The second term, a bias, is carried by a direction that all images share, since a
    prediction is a product with the features and nothing else.
    """
    n_classes = texts.tuned.shape[0]
    x = features.double()
    counts = torch.bincount(labels, minlength=n_classes).double()
    frame = Frame.of(x, labels, counts, recipe.prior_images)
    return embeddings_of_means(plain_means(x, labels, counts), counts, frame, texts, recipe.caution)


def embeddings_of_means(
    means: Float[Tensor, "n_classes dim"],
    counts: Float[Tensor, " n_classes"],
    frame: "Frame",
    texts: Texts,
    caution: float,
) -> Float[Tensor, "n_classes dim"]:
    """Return what `posterior_embeddings` does, of means and a frame that are known already.

    Args:
        means: of the classes' images, see `plain_means`.
        counts: of the images that each mean is of.
        frame: the scatter within classes.
        texts: of the tuned prompts and of the hand-written ones.
        caution: of the recipe.
    """
    posterior = _posterior(frame.into(means), counts, frame, texts, caution)
    bias = -posterior.square().sum(dim=-1) / 2
    shared = frame.shared(means[counts > 0].mean(dim=0))
    return ((frame.into(posterior) + bias[:, None] * shared) / frame.variance).float()


def fit_temperature(
    texts: Texts, data: TrainingSet, groups: Sequence[str], recipe: Recipe
) -> float:
    """Return the temperature under which held-out images' own classes are most probable.

    By cross-validation inside the training images, every class with the same weight. Where fewer
    than two groups of any class are there to hold out, a middling one.
    """
    labels, n_classes = data.labels, data.n_classes
    if len(set(groups)) < 2 * n_classes:
        return _UNKNOWN_TEMPERATURE
    folds = cross_validation_folds(labels.tolist(), groups, _TEMPERATURE_FOLDS, seed=0)
    logits = torch.zeros(len(labels), n_classes)
    for train, test in folds:
        embeddings = posterior_embeddings(texts, data.features[train], labels[train], recipe)
        logits[test] = data.features[test] @ embeddings.T
    weight = (1 / data.counts().clamp_min(1))[labels]
    own = labels[:, None]

    def likelihood(temperature: float) -> float:
        logs = (logits / temperature).log_softmax(dim=-1).gather(1, own)[:, 0]
        return float((weight * logs).sum())

    return max(_TEMPERATURES, key=likelihood)


class Frame(NamedTuple):
    """A frame in which the scatter within classes is round.

    Attributes:
        matrix: symmetric, from features into the frame, `(dim, dim)`.
        scatter: the mean squared distance of an image from its class's mean there.
        variance: the same of one dimension.
    """

    matrix: Float[Tensor, "dim dim"]
    scatter: Float[Tensor, ""]
    variance: Float[Tensor, ""]

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "n dim"],
        labels: Int[Tensor, " n"],
        counts: Float[Tensor, " n_classes"],
        prior_images: float,
        *,
        dim: int | None = None,
    ) -> "Frame":
        """Estimate it: the covariance within classes, shrunk to a multiple of the identity.

        Args:
            x: the images' features.
            labels: of the images.
            counts: of the classes.
            prior_images: see `models.recipe.Recipe`.
            dim: of the features, where `x` has them in a basis of a subspace that holds all means,
                texts and images that are ever asked about; the result is then the same, sooner.
        """
        n, width = x.shape
        dim = dim or width
        freedom = n - int((counts > 0).sum())
        away = x - plain_means(x, labels, counts)[labels]
        if freedom == 0 or not away.any():
            scatter = x.new_tensor(_UNKNOWN_SCATTER)
            return cls(torch.eye(width, dtype=x.dtype), scatter, scatter / dim)
        covariance = away.T @ away / freedom
        mean_variance = covariance.trace() / dim
        share = prior_images * dim / (prior_images * dim + freedom)
        shrunk = (1 - share) * covariance
        shrunk.diagonal().add_(share * mean_variance)
        values, vectors = torch.linalg.eigh(shrunk)
        matrix = vectors @ torch.diag((mean_variance / values).sqrt()) @ vectors.T
        scatter = (away @ matrix).square().sum() / freedom
        return cls(matrix, scatter, scatter / dim)

    def into(self, rows: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Return rows in the frame; of weights that act there, the weights that act on features."""
        return rows @ self.matrix

    def shared(self, centre: Float[Tensor, " dim"]) -> Float[Tensor, " dim"]:
        """Return the direction whose product with an image around `centre` is nearest to 1.

        In the mean square, so that it is 0 where the images have nothing in common.
        """
        direction = self.matrix @ self.matrix @ centre
        return direction / (self.variance + centre @ direction)


def plain_means(
    x: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], counts: Float[Tensor, " n_classes"]
) -> Float[Tensor, "n_classes dim"]:
    """Return the means of the classes, not normalised: the more noise in one, the longer it is."""
    sums = x.new_zeros(len(counts), x.shape[1]).index_add_(0, labels, x)
    return sums / counts.clamp_min(1)[:, None]


def _posterior(
    means: Float[Tensor, "n_classes dim"],
    counts: Float[Tensor, " n_classes"],
    frame: Frame,
    texts: Texts,
    caution: float,
) -> Float[Tensor, "n_classes dim"]:
    """Return the classes' posterior means in the frame, see `posterior_embeddings`."""
    tuned, written = (frame.into((t - t.mean(dim=0)).double()) for t in texts)
    told = _text_gain(means, counts, written) * tuned
    noise = frame.scatter / counts  # infinite where there is no image
    centre, spread = _prior(means - told, noise, frame)
    prior = centre + told
    doubt = 1 + caution * (1 - counts / counts.max())
    belief = spread / (spread + noise * doubt)
    return prior + belief[:, None] * torch.where(counts[:, None] > 0, means - prior, 0.0)


def _text_gain(
    means: Float[Tensor, "n_classes dim"],
    counts: Float[Tensor, " n_classes"],
    said: Float[Tensor, "n_classes dim"],
) -> float:
    """Return the factor by which what the texts say fits the means best; 0 where it does not."""
    weight = counts / (counts + 1)
    length = (weight * said.square().sum(dim=-1)).sum()
    if length == 0:
        return 0.0
    centre = (weight[:, None] * means).sum(dim=0) / weight.sum()
    fit = (weight * ((means - centre) * said).sum(dim=-1)).sum() / length
    return min(max(float(fit), 0.0), _MAX_TEXT_GAIN)


def _prior(
    means: Float[Tensor, "n_classes dim"], noise: Float[Tensor, " n_classes"], frame: Frame
) -> tuple[Float[Tensor, " dim"], Float[Tensor, ""]]:
    """Return centre and variance of the distribution that the classes' means are drawn from.

    By the method of moments, each mean weighted by how surely it is known.
    """
    seen = noise.isfinite()
    means, noise = means[seen], noise[seen]
    spread = (means - means.mean(dim=0)).square().sum(dim=-1).mean()
    least = _LEAST_SPREAD * frame.scatter
    centre, unbiased = means.mean(dim=0), len(means) / max(1, len(means) - 1)
    for _ in range(5):
        weight = 1 / (spread + noise)
        centre = (weight[:, None] * means).sum(dim=0) / weight.sum()
        distance = (means - centre).square().sum(dim=-1) * unbiased
        spread = torch.maximum((weight * (distance - noise)).sum() / weight.sum(), least)
    return centre, spread
