"""IVLP and MaPLe: both towers are tuned, on pixels."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import open_clip
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from models.backbone import Backbone
from models.collapse import regularizers
from models.errors import BadDataset, BadRecipe
from models.methods.deep import DeepClassifier, PromptedTowers
from models.methods.ivlp import IVLP, IVLPRecipe, independent_prompts
from models.methods.maple import MaPLe, MaPLeRecipe
from models.methods.method import Classifier, Method
from models.methods.promptsrc import PromptSRC, PromptSRCRecipe
from models.training_set import Images, TrainingSet
from tests.unit.models.conftest import build_clip
from tests.unit.models.deep_towers import NAMES, asked, deep_backbone, drawn_data

QUICK = {"epochs": 2, "threads": 1}


def ivlp(callbacks: Any = (), **values: Any) -> IVLP:
    return IVLP(IVLPRecipe(**(QUICK | values)), callbacks)


def maple(callbacks: Any = (), **values: Any) -> MaPLe:
    return MaPLe(MaPLeRecipe(**(QUICK | values)), callbacks)


def promptsrc(callbacks: Any = (), **values: Any) -> PromptSRC:
    return PromptSRC(PromptSRCRecipe(**(QUICK | values)), callbacks)


Make = Callable[..., IVLP | MaPLe | PromptSRC]
every = pytest.mark.parametrize("make", [ivlp, maple, promptsrc])


def fit(method: Method, data: TrainingSet, seed: int = 0) -> DeepClassifier:
    classifier = method.fit(deep_backbone(), data, seed)
    assert isinstance(classifier, DeepClassifier)
    return classifier


def test_the_published_recipes() -> None:
    ours = [IVLP().recipe, MaPLe().recipe, PromptSRC().recipe]

    assert [r.n_ctx for r in ours] == [2, 2, 4]
    assert [r.epochs for r in ours] == [5, 5, 20]
    assert [r.lr for r in ours] == [0.0035, 0.0035, 0.0025]
    assert {(r.ctx_init, r.batch_size, r.lc_weight) for r in ours} == {("a photo of a", 4, 0)}
    assert (ours[0].n_ctx_vision, ours[0].depth_text, ours[0].depth_vision) == (2, 12, 12)
    assert ours[1].depth == 9
    assert (ours[2].n_ctx_vision, ours[2].depth_text, ours[2].depth_vision) == (4, 9, 9)
    assert (ours[2].text_weight, ours[2].image_weight, ours[2].logit_weight) == (25, 10, 1)
    assert (ours[2].gpa_mean, ours[2].gpa_std) == (15, 1)


@every
def test_it_is_a_method_on_pixels_and_gives_a_classifier(make: Make) -> None:
    method, data = make(), drawn_data()
    assert isinstance(method, Method)
    assert method.needs_pixels
    classifier = fit(method, data)
    assert isinstance(classifier, Classifier)

    images, text = classifier.image_features(asked(data)), classifier.text_features
    for features in (images, text):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(len(features)))
    expected = deep_backbone().logit_scale * images @ text.T
    torch.testing.assert_close(classifier.logits(asked(data)), expected)
    assert not torch.allclose(images, data.features, atol=1e-3)


@every
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_loss_falls_and_images_not_seen_are_told_apart(make: Make, n_classes: int) -> None:
    losses: list[float] = []
    listen = [lambda _, loss: losses.append(loss)]
    # Nothing that holds it back: towers drawn at random know nothing worth keeping.
    free = {"text_weight": 0, "image_weight": 0, "logit_weight": 0, "gpa_mean": 30}
    free |= {"n_ctx": 2, "n_ctx_vision": 2}
    values = {"epochs": 30, "lr": 0.005, "batch_size": 12}
    method = make(listen, **values, **(free if make is promptsrc else {}))
    classifier = fit(method, drawn_data(n_classes))
    others = drawn_data(n_classes, first=100)

    assert losses[-1] < 0.5 * losses[0]
    right = classifier.logits(asked(others)).argmax(dim=1) == others.labels
    assert right.float().mean() > 0.9


@every
def test_one_seed_gives_one_result_and_another_another(make: Make) -> None:
    data = drawn_data()
    runs = [fit(make(), data, seed) for seed in (0, 0, 1)]
    texts = [run.text_features for run in runs]
    images = [run.image_features(asked(data)) for run in runs]

    for first, again, other in (texts, images):
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


@every
def test_the_backbone_stays_frozen(make: Make) -> None:
    backbone = deep_backbone()
    towers = [*backbone.text.parameters(), *backbone.vision.parameters()]
    before = [parameter.clone() for parameter in towers]
    fit(make(), drawn_data())

    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, towers, strict=True))
    assert all(parameter.grad is None for parameter in towers)


@every
def test_the_same_prompts_serve_other_names(make: Make) -> None:
    data = drawn_data()
    classifier = fit(make(), data)

    assert torch.equal(classifier.renamed(NAMES).text_features, classifier.text_features)
    other = classifier.renamed(["dent", "scratch"])
    torch.testing.assert_close(other.text_features[1], classifier.text_features[1])
    torch.testing.assert_close(
        other.image_features(asked(data)), classifier.image_features(asked(data))
    )
    assert other.logits(asked(data)).shape == (12, 2)


@every
def test_prompts_are_no_deeper_than_the_towers(make: Make) -> None:
    backbone = deep_backbone(vision_layers=2, text_layers=3)
    settings = make().fit(backbone, drawn_data(), 0).settings

    depths = {key: value for key, value in settings.items() if key.startswith("depth")}
    expected = {"depth": 2} if make is maple else {"depth_text": 3, "depth_vision": 2}
    assert depths == expected
    assert settings["method"] == make.__name__


@torch.no_grad()
def test_of_depth_1_the_prompts_are_shallow() -> None:
    """The text is CoOp's, and the image tower has tokens in front of its first block alone."""
    backbone, data = deep_backbone(), drawn_data()
    towers = PromptedTowers(backbone, "IVLP")
    recipe = IVLPRecipe(depth_text=1, depth_vision=1)
    prompts = independent_prompts(towers, NAMES, recipe, torch.Generator().manual_seed(0))
    assert data.pixels is not None
    pixels = data.pixels(torch.arange(12))

    coop = normalize(backbone.text(prompts.coop()), dim=-1)
    assert torch.equal(towers.text_features(prompts), coop)
    written = backbone.encode_texts([f"a photo of a {name}." for name in NAMES])
    assert torch.equal(coop, written)
    (tokens,) = prompts.vision_layers()
    shallow = towers.vision(backbone.normalised(pixels), [tokens])
    assert torch.equal(towers.image_features(pixels, prompts), normalize(shallow, dim=-1))


@pytest.mark.parametrize("batch_size", [1, 12])
@pytest.mark.parametrize("mi_form", ["point", "gram"])
def test_each_term_adds_exactly_itself(batch_size: int, mi_form: str) -> None:
    """The loss of the first step, before anything is learnt; a batch may lack classes."""
    backbone, data = deep_backbone(), drawn_data()
    data = replace(data, labels=torch.tensor([0] * 6 + [1] * 4 + [2] * 2))

    def first(**values: Any) -> float:
        heard: list[float] = []
        once = {"epochs": 2, "warmup_epochs": 1, "steps_per_epoch": 1, "batch_size": batch_size}
        fit(ivlp([lambda _, loss: heard.append(loss)], **once, **values), data)
        return heard[0]

    generator = torch.Generator().manual_seed(0)
    towers = PromptedTowers(backbone, "IVLP")
    recipe = IVLPRecipe(depth_text=3, depth_vision=3)
    prompts = independent_prompts(towers, NAMES, recipe, generator)
    batch = torch.randperm(12, generator=generator)[:batch_size]
    labels = data.labels[batch]
    assert data.pixels is not None
    with torch.no_grad():
        text = towers.text_features(prompts)
        image = towers.image_features(data.pixels(batch), prompts)
    logits, prior = backbone.logit_scale * image @ text.T, torch.tensor([6 / 12, 4 / 12, 2 / 12])
    means = regularizers.class_means(image, labels, 3)
    present = torch.tensor([label in labels for label in range(3)])
    mi = getattr(regularizers, f"mi_{mi_form}")(text, means, present)

    ce = cross_entropy(logits, labels)
    adjusted = cross_entropy(logits + prior.log(), labels)
    weighed: list[tuple[dict[str, Any], torch.Tensor]] = [
        ({}, ce),
        ({"lc_weight": 2.0}, ce + 2 * regularizers.lc_gram(text)),
        ({"mi_weight": 3.0, "mi_form": mi_form}, ce + 3 * mi),
        ({"logit_adjustment": 1.0}, adjusted),
    ]
    for values, expected in weighed:
        assert first(**values) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("make", [ivlp, maple])
def test_a_weight_moves_what_it_weighs(make: Make) -> None:
    data = drawn_data()

    def distances(**values: float) -> tuple[float, float]:
        classifier = fit(make(epochs=6, lr=0.02, batch_size=12, **values), data)
        means = regularizers.class_means(classifier.image_features(asked(data)), data.labels, 3)
        text, present = classifier.text_features, torch.ones(3, dtype=torch.bool)
        return float(regularizers.lc_gram(text)), float(regularizers.mi_point(text, means, present))

    plain = distances()
    assert distances(lc_weight=20.0)[0] < plain[0]
    assert distances(mi_weight=20.0)[1] < plain[1]


@every
def test_images_without_pixels_are_refused(make: Make) -> None:
    data = drawn_data()
    blind = TrainingSet(data.prompt_names, data.features, data.labels)

    with pytest.raises(BadRecipe, match="features without pixels") as caught:
        fit(make(), blind)
    assert caught.value.field == "method"
    classifier = fit(make(), data)
    for ask in (classifier.image_features, classifier.logits):
        with pytest.raises(BadRecipe, match="features without pixels"):
            ask(Images(data.features))


@every
def test_a_convolutional_tower_is_refused_before_anything_is_read(
    make: Make, resnet: Backbone
) -> None:
    with pytest.raises(BadRecipe, match=r"cannot prompt the backbone 'resnet': .* ModifiedResNet"):
        make().fit(resnet, drawn_data(), 0)


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    clip = build_clip(vision={"layers": [1, 1, 1, 1], "width": 16})
    return Backbone(clip, open_clip.SimpleTokenizer(), source="resnet", device="cpu")


@every
def test_one_class_is_refused(make: Make) -> None:
    with pytest.raises(BadDataset, match="at least 2 classes"):
        fit(make(), drawn_data(1))


def test_no_images_have_no_features() -> None:
    data = drawn_data()
    classifier = fit(ivlp(), data)
    assert classifier.logits(Images(data.features[:0], data.pixels)).shape == (0, 3)


def test_more_images_than_one_batch() -> None:
    data = drawn_data(per_class=7)
    classifier = fit(ivlp(), data)
    read = data.pixels
    assert read is not None
    last = Images(data.features[-2:], lambda index: read(index + 19))

    together = classifier.image_features(asked(data))
    torch.testing.assert_close(classifier.image_features(last), together[-2:])


@every
def test_it_is_tuned_at_the_precision_of_the_backbone(make: Make) -> None:
    data, heard = drawn_data(), []
    half = Backbone(
        build_clip(vision={"layers": 3}, layers=3),
        open_clip.SimpleTokenizer(),
        source="half",
        device="cpu",
        precision="bf16",
    )
    settings = {"epochs": 2, "warmup_epochs": 0, "lr": 0.01}
    classifier = make([lambda _, loss: heard.append(loss)], **settings).fit(half, data, 0)
    whole: list[float] = []
    fit(make([lambda _, loss: whole.append(loss)], **settings), data)

    assert heard != whole
    assert heard == pytest.approx(whole, rel=0.05)
    assert classifier.image_features(asked(data)).dtype == torch.float32
