"""The distillation: text features are pulled onto their targets and away from the others."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import open_clip
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy, normalize

from models.starter.student import PromptTokens, encode_tokens

MIN_STEPS = 40  # of a phase: the schedule wants more than one step of warm-up
BUCKETS = 8  # batches that are drawn together, sorted by length and dealt out again
PARTS = 4  # of a batch that holds every name, by length, each cut to its longest

# Tokens of the texts, in one or more parts, and the indices into the targets of all of them.
Batch = tuple[list[Tensor], Tensor]


@dataclass(frozen=True)
class Phase:
    """A stretch of a distillation with an optimizer and a fall of the learning rate of its own.

    `name_share` is the part of a batch that are spellings of ImageNet classes, not other phrases.
    `imagined` adds the loss on imagined images, see `imagined_loss`. With `every_name` each batch
    holds the plainest name of every class once, so that all of them are told apart in every step;
    it is as large as `name_share` then makes it.
    """

    steps: int
    name_share: float
    learning_rate: float = 1.5e-3
    imagined: bool = False
    every_name: bool = False


@dataclass(frozen=True)
class Recipe:
    """The settings of a distillation. Rates are AdamW's, shares are parts of one.

    Each phase reads more class names than the one before: their features must be exact.
    """

    phases: tuple[Phase, ...] = (
        Phase(1700, 0.5),
        Phase(1500, 0.7),
        Phase(600, 0.7, learning_rate=1e-3, imagined=True),
        Phase(225, 0.87, learning_rate=8e-4, imagined=True, every_name=True),
    )
    batch_size: int = 384
    weight_decay: float = 0.02
    warmup: float = 0.05  # share of a phase's steps
    bare_share: float = 0.25  # of the texts: the phrase alone
    photo_share: float = 0.25  # of the texts: "a photo of a …."
    contrast_scale: float = 20.0  # inverse temperature of the contrastive losses
    imagined_noise: float = 2.5  # length of an imagined image's noise beside its text's target

    @property
    def steps(self) -> int:
        """The steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    def scaled(self, factor: float) -> "Recipe":
        """The same recipe with `factor` times the steps, at least `MIN_STEPS` for each phase."""
        phases = [replace(p, steps=max(MIN_STEPS, round(p.steps * factor))) for p in self.phases]
        return replace(self, phases=tuple(phases))

    def after_growth(self) -> "Recipe":
        """The same recipe without the two phases that a grown student's source went through."""
        return replace(self, phases=self.phases[2:])


@dataclass(frozen=True)
class Targets:
    """Phrases and their `(n, embed_dim)` normalised targets.

    The first `n_names` are spellings of classes; `plain` are the indices of the plainest ones.
    """

    phrases: Sequence[str]
    vectors: Tensor
    n_names: int
    plain: Tensor


def distill(
    model: open_clip.CLIP,
    targets: Targets,
    tokens: PromptTokens,
    n_templates: int,
    recipe: Recipe,
    phase: Phase,
    generator: torch.Generator,
    on_step: Callable[[float], None],
) -> None:
    """Train the text tower of `model` in place; `on_step` is told each step's loss.

    Runs one phase of the recipe. Templates 0 and 1 must be the bare phrase and the photo prompt.
    """
    parameters = text_parameters(model)
    optimizer = torch.optim.AdamW(parameters, lr=phase.learning_rate, fused=True)
    optimizer.param_groups[0]["weight_decay"] = recipe.weight_decay
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.learning_rate, phase.steps, pct_start=recipe.warmup, cycle_momentum=False
    )
    draw = draw_every_name if phase.every_name else draw_batches
    batches = draw(targets, tokens, n_templates, recipe, phase, generator)
    for _, (texts, chosen) in zip(range(phase.steps), batches, strict=False):
        wanted = targets.vectors[chosen]
        with sdpa_kernel(SDPBackend.MATH):  # a third faster than flash attention on short texts
            features = torch.cat([encode_tokens(model, part) for part in texts])
            loss = distillation_loss(features, wanted, recipe.contrast_scale)
            if phase.imagined:
                images = imagine_images(wanted, recipe.imagined_noise, generator)
                loss = loss + imagined_loss(features, wanted, images, recipe.contrast_scale)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        on_step(loss.item())


def distillation_loss(features: Tensor, targets: Tensor, scale: float) -> Tensor:
    """Cosine loss plus a contrastive loss inside the batch.

    `features` and `targets` are `(batch, embed_dim)`, targets normalised. The right answer of the
    contrastive part is soft, softmax(scale * t_i . t_j): two prompts of one name share a target,
    and neither may be pushed from it.
    """
    students = normalize(features, dim=1)
    cosine = (students * targets).sum(dim=1)
    wanted = (scale * targets @ targets.T).softmax(dim=1)
    return (1 - cosine).mean() + cross_entropy(scale * students @ targets.T, wanted)


def imagine_images(targets: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Draw an image feature for each text: its target, and traces of all others of the batch.

    `targets` is `(batch, embed_dim)`, normalised, and so is what is returned. At a noise of 2.5 an
    imagined image has the cosine with its own name's row that photographs have, about 0.4.
    """
    traces = torch.randn(len(targets), len(targets), generator=generator) / len(targets) ** 0.5
    return normalize(targets + noise * traces @ targets, dim=1)


def imagined_loss(features: Tensor, targets: Tensor, images: Tensor, scale: float) -> Tensor:
    """Cross-entropy between what the targets and what the features make of imagined images.

    The text tower is narrower than the embedding, so not every direction of the targets can be met:
    this says which ones matter, those that tell images apart.
    """
    students = normalize(features, dim=1)
    return cross_entropy(scale * images @ students.T, (scale * images @ targets.T).softmax(dim=1))


def draw_batches(
    targets: Targets,
    tokens: PromptTokens,
    n_templates: int,
    recipe: Recipe,
    phase: Phase,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Endless batches of phrases, texts of like length together."""
    total = recipe.batch_size * BUCKETS
    while True:
        chosen = draw_phrases(targets, total, phase.name_share, generator)
        templates = draw_templates(n_templates, total, recipe, generator)
        rows, by_length = _texts(targets, tokens, chosen, templates)
        parts = by_length.reshape(BUCKETS, recipe.batch_size)
        for part in parts[torch.randperm(BUCKETS, generator=generator)]:
            yield [tokens.pad([rows[i] for i in part.tolist()])], chosen[part]


def draw_every_name(
    targets: Targets,
    tokens: PromptTokens,
    n_templates: int,
    recipe: Recipe,
    phase: Phase,
    generator: torch.Generator,
) -> Iterator[Batch]:
    """Endless batches of every class's plainest name and some phrases that are no name."""
    n_others = round(len(targets.plain) * (1 / phase.name_share - 1))
    while True:
        others = torch.randint(
            targets.n_names, len(targets.phrases), (n_others,), generator=generator
        )
        chosen = torch.cat([targets.plain, others])
        templates = draw_templates(n_templates, len(chosen), recipe, generator)
        rows, by_length = _texts(targets, tokens, chosen, templates)
        parts = by_length.chunk(PARTS)
        yield [tokens.pad([rows[i] for i in part.tolist()]) for part in parts], chosen[by_length]


def _texts(
    targets: Targets, tokens: PromptTokens, chosen: Tensor, templates: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The tokens of each chosen phrase in its template, and their order by length."""
    pairs = zip(chosen.tolist(), templates.tolist(), strict=True)
    rows = [tokens(template, targets.phrases[index]) for index, template in pairs]
    return rows, torch.tensor([len(row) for row in rows]).argsort(stable=True)


def draw_phrases(
    targets: Targets, total: int, name_share: float, generator: torch.Generator
) -> Tensor:
    """Indices of `total` phrases: each is a class name with probability `name_share`."""
    names = torch.randint(targets.n_names, (total,), generator=generator)
    others = torch.randint(targets.n_names, len(targets.phrases), (total,), generator=generator)
    return torch.where(torch.rand(total, generator=generator) < name_share, names, others)


def draw_templates(
    n_templates: int, total: int, recipe: Recipe, generator: torch.Generator
) -> Tensor:
    """Indices of `total` templates: bare, photo, or any other with equal chance."""
    any_other = torch.randint(2, n_templates, (total,), generator=generator)
    draw = torch.rand(total, generator=generator)
    photo = torch.where(draw < recipe.bare_share + recipe.photo_share, 1, any_other)
    return torch.where(draw < recipe.bare_share, 0, photo)


def text_parameters(model: open_clip.CLIP) -> list[torch.nn.Parameter]:
    """The parameters that the distillation changes: all but the image tower and logit_scale."""
    return [
        parameter
        for name, parameter in model.named_parameters()
        if not name.startswith("visual.") and name != "logit_scale"
    ]


@torch.inference_mode()
def encode_phrases(
    model: open_clip.CLIP, tokens: PromptTokens, template: int, phrases: Sequence[str]
) -> Tensor:
    """Normalised text features `(len(phrases), embed_dim)` of phrases in one template."""
    rows = [tokens(template, phrase) for phrase in phrases]
    batches = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    return torch.cat([normalize(encode_tokens(model, tokens.pad(b)), dim=1) for b in batches])
