"""Baselines: by hand on features of two or three dimensions, then what holds for each of them."""

import json
import math
from collections.abc import Mapping

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.baselines.clap import CLAP, multipliers
from models.baselines.linear_probe import LinearProbe
from models.baselines.lp_plus_plus import LPPlusPlus
from models.baselines.nearest_class_mean import NearestClassMean
from models.baselines.tip_adapter import TipAdapter
from models.baselines.tip_adapter_f import TipAdapterF
from models.baselines.zero_shot import IMAGENET_TEMPLATES, ZeroShot, zero_shot
from models.dataset import LabelledImage
from models.features import MemoryFeatureStore, image_features
from models.imaging import View
from models.methods.method import Classifier, Linear, Method, probabilities
from models.training_set import Images, TrainingSet
from tests.unit.models.conftest import draw_images

METHODS: dict[str, Method] = {
    "zero-shot": ZeroShot(),
    "zero-shot-80": ZeroShot(IMAGENET_TEMPLATES),
    "nearest-class-mean": NearestClassMean(),
    "linear-probe": LinearProbe(),
    "linear-probe-balanced": LinearProbe(class_weight="balanced"),
    "tip-adapter": TipAdapter(),
    "tip-adapter-f": TipAdapterF(batch_size=4),
    "lp++": LPPlusPlus(),
    "clap": CLAP(batch_size=4, epochs=20),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())

FEATURES = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
LABELS = torch.tensor([0, 0, 1, 1])
AXES = torch.eye(2)


class Written(Backbone):
    """A backbone whose text features are written down."""

    def __init__(self, texts: Mapping[str, list[float]], logit_scale: float) -> None:
        self._texts, self.logit_scale = texts, logit_scale

    def encode_texts(self, texts):
        return torch.tensor([self._texts[text] for text in texts], dtype=torch.float32)


def axes(logit_scale: float) -> Written:
    """Two classes whose text features are the axes of the plane."""
    return Written({"a photo of a x.": [1, 0], "a photo of a y.": [0, 1]}, logit_scale)


def plane(features: torch.Tensor, labels: list[int]) -> TrainingSet:
    return TrainingSet(["x", "y"], features, torch.tensor(labels))


def drawn(*counts: int, seed: int = 0) -> TrainingSet:
    """Return that many random features of each class, in the tiny CLIP's 16 dimensions."""
    labels = torch.repeat_interleave(torch.tensor(counts))
    noise = torch.randn(len(labels), 16, generator=torch.Generator().manual_seed(seed))
    centres = 3 * torch.eye(16)[labels]
    names = ["cat", "deep scratch", "stain"][: len(counts)]
    return TrainingSet(names, torch.nn.functional.normalize(noise + centres, dim=-1), labels)


def test_zero_shot_is_the_hand_written_prompt(backbone: Backbone) -> None:
    names = ["cat", "deep scratch"]

    written = backbone.encode_texts(["a photo of a cat.", "a photo of a deep scratch."])
    torch.testing.assert_close(zero_shot(backbone, names), written)
    other = zero_shot(backbone, names, ["a blurry {}"])
    expected = backbone.encode_texts(["a blurry cat", "a blurry deep scratch"])
    torch.testing.assert_close(other, expected)


def test_templates_are_averaged_and_normalised() -> None:
    written = Written({"a x": [1, 0], "b x": [0.6, 0.8]}, 1.0)

    text = zero_shot(written, ["x"], ["a {}", "b {}"])

    # The mean is (0.8, 0.4).
    torch.testing.assert_close(text, torch.tensor([[2.0, 1.0]]) / 5**0.5)


def test_the_templates_of_imagenet_are_eighty_texts() -> None:
    assert len(set(IMAGENET_TEMPLATES)) == 80
    assert IMAGENET_TEMPLATES[0] == "a bad photo of a {}."
    assert all(template.count("{}") == 1 for template in IMAGENET_TEMPLATES)


def test_zero_shot_by_hand_and_renamed() -> None:
    classifier = ZeroShot().fit(axes(2.0), plane(AXES, [0, 1]), seed=0)
    image = Images(torch.tensor([[0.8, 0.6]]))

    torch.testing.assert_close(classifier.logits(image), torch.tensor([[1.6, 1.2]]))
    torch.testing.assert_close(
        classifier.renamed(["y", "x", "y"]).logits(image), torch.tensor([[1.2, 1.6, 1.2]])
    )


def test_nearest_class_mean_by_hand() -> None:
    classifier = NearestClassMean().fit(axes(3.0), plane(FEATURES, [0, 0, 1, 1]), seed=0)

    # (1.8, 0.6) and (-0.6, 1.8), both of length 0.6·√10.
    means = torch.tensor([[3.0, 1.0], [-1.0, 3.0]]) / 10**0.5
    torch.testing.assert_close(classifier.embeddings, means)
    torch.testing.assert_close(classifier.logits(Images(AXES)), 3 * means.T)


def test_a_linear_probe_by_hand() -> None:
    # At ±1, both classes' gradients together are 2C/(1 + e^w) = w, which w = 1 solves.
    data = plane(torch.tensor([[-1.0], [1.0]]), [0, 1])

    classifier = LinearProbe(c=(1 + math.e) / 2).fit(axes(1.0), data, seed=0)

    expected = torch.tensor([[-0.5], [0.5]])
    torch.testing.assert_close(classifier.embeddings, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(classifier.bias, torch.zeros(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("counts", [(6, 5), (6, 5, 4)])
def test_a_linear_probe_is_that_of_scikit_learn(backbone: Backbone, counts) -> None:
    data = drawn(*counts)
    probe = LogisticRegression(C=10.0, max_iter=5000).fit(data.features, data.labels)

    classifier = LinearProbe().fit(backbone, data, seed=0)

    expected = torch.from_numpy(probe.predict_proba(data.features)).float()
    torch.testing.assert_close(
        probabilities(classifier, Images(data.features)), expected, atol=1e-5, rtol=0
    )


def test_a_stronger_regularisation_is_less_certain() -> None:
    data = plane(FEATURES, [0, 0, 1, 1])
    weak, strong = (
        probabilities(LinearProbe(c=c).fit(axes(1.0), data, seed=0), Images(FEATURES))
        for c in (100.0, 0.01)
    )

    assert weak.max() > strong.max()
    assert strong.max().item() == pytest.approx(0.5, abs=0.05)


def test_a_balanced_probe_hears_the_small_class() -> None:
    data = plane(torch.cat([FEATURES[:1]] * 20 + [FEATURES[2:3]]), [0] * 20 + [1])
    between = Images(torch.tensor([[0.6, 0.8]]))

    plain = LinearProbe(c=1.0).fit(axes(1.0), data, seed=0)
    balanced = LinearProbe(c=1.0, class_weight="balanced").fit(axes(1.0), data, seed=0)
    assert plain.logits(between).argmax() == 0
    assert balanced.logits(between).argmax() == 1


def test_of_equal_counts_a_balanced_probe_is_the_plain_one(backbone: Backbone) -> None:
    data = drawn(4, 4, 4)

    plain, balanced = (
        LinearProbe(class_weight=weight).fit(backbone, data, seed=0)
        for weight in (None, "balanced")
    )
    torch.testing.assert_close(plain.embeddings, balanced.embeddings)
    torch.testing.assert_close(plain.bias, balanced.bias)


@pytest.mark.parametrize("method", [NearestClassMean(), LinearProbe()])
@pytest.mark.parametrize("labels", [[1, 1, 1, 1], [1, 1, 2, 2]])
def test_without_text_a_class_without_images_is_never_chosen(method, labels) -> None:
    data = TrainingSet(["x", "y", "z"], FEATURES, torch.tensor(labels))

    found = probabilities(method.fit(axes(1.0), data, seed=0), Images(-FEATURES))

    assert bool((found[:, 0] == 0).all())
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4))
    assert set(found.argmax(dim=1).tolist()) <= set(labels)


def test_tip_adapter_by_hand() -> None:
    data = plane(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]]), [0, 1, 1])

    cache = TipAdapter(alpha=3.0, beta=5.0).fit(axes(2.0), data, seed=0)

    # Cosines with the keys 0.8, 0.96, 0.6; 5·(1 - cosine) is 1, 0.2, 2.
    expected = [1.6 + 3 * math.exp(-1), 1.2 + 3 * (math.exp(-0.2) + math.exp(-2))]
    logits = cache.logits(Images(torch.tensor([[0.8, 0.6]])))
    torch.testing.assert_close(logits, torch.tensor([expected]))


def test_tip_adapter_without_its_cache_is_zero_shot(backbone: Backbone) -> None:
    data = drawn(3, 2, 1)
    images = Images(data.features)

    cache = TipAdapter(alpha=0.0).fit(backbone, data, seed=0)

    before = ZeroShot().fit(backbone, data, seed=0)
    torch.testing.assert_close(cache.logits(images), before.logits(images))


def test_tip_adapter_f_without_epochs_is_tip_adapter(backbone: Backbone) -> None:
    data = drawn(3, 2, 1)

    trained = TipAdapterF(epochs=0).fit(backbone, data, seed=0)

    assert torch.equal(trained.keys, TipAdapter().fit(backbone, data, seed=0).keys)


def test_one_step_of_tip_adapter_f_by_hand() -> None:
    # Affinities 1 and 1/2, and no text: the own class has 1/(1 + e^-½).
    method = TipAdapterF(beta=math.log(2), lr=0.1, eps=0.01, epochs=1)

    cache = method.fit(axes(0.0), plane(AXES, [0, 1]), seed=0)

    # The gradient of the first key is (-r, r/2); AdamW's first step is lr·g/(|g| + eps).
    r = (1 - 1 / (1 + math.exp(-0.5))) * math.log(2) / 2
    own = 0.999 + 0.1 * r / (r + 0.01)
    other = -0.1 * (r / 2) / (r / 2 + 0.01)
    torch.testing.assert_close(cache.keys, torch.tensor([[own, other], [other, own]]))


def test_lp_plus_plus_without_iterations_is_its_start() -> None:
    data = plane(FEATURES[:3], [0, 0, 1])

    classifier = LPPlusPlus(iterations=0).fit(axes(1.0), data, seed=0)

    # Means (0.9, 0.3) and (0, 1) times 3/2; own cosines 0.9 and 1, so alpha is 250·0.95.
    expected = torch.tensor([[1.35 + 237.5, 0.45], [0.0, 1.5 + 237.5]])
    torch.testing.assert_close(classifier.embeddings, expected)


def test_one_iteration_of_lp_plus_plus_by_hand() -> None:
    method = LPPlusPlus(iterations=1, alpha_every=1, alpha_start=0.0)

    classifier = method.fit(axes(1.0), plane(AXES, [0, 1]), seed=0)

    # Logits 1 and 0: q is wrong. Steps 4·2/1 and 2/(4·1), gradients ∓q/2 and -q/2.
    q = 1 / (1 + math.e)
    own, other = 1 + 4 * q + q / 4, -4 * q
    torch.testing.assert_close(classifier.embeddings, torch.tensor([[own, other], [other, own]]))


def test_alpha_waits_for_its_turn(backbone: Backbone) -> None:
    data = drawn(3, 2, 1)

    ninth, never, tenth = (
        LPPlusPlus(iterations=count, alpha_every=every).fit(backbone, data, seed=0).embeddings
        for count, every in ((9, 10), (9, 1000), (10, 10))
    )
    tenth_without = LPPlusPlus(iterations=10, alpha_every=1000).fit(backbone, data, seed=0)
    assert torch.equal(ninth, never)
    assert not torch.equal(tenth, tenth_without.embeddings)


def test_multipliers_of_clap_by_hand() -> None:
    # With a scale of log 3 an axis has 3/5 for itself and 1/5 for each of two others.
    data = TrainingSet(["x", "y", "z"], torch.eye(3)[[0, 1, 1]], torch.tensor([0, 0, 1]))

    found = multipliers(Linear(torch.eye(3), math.log(3)), data)

    # x: 3/5 and 1/5; y: 3/5; z has no images.
    torch.testing.assert_close(found, torch.tensor([0.4, 0.6, 1.0]))


def test_one_step_of_clap_by_hand() -> None:
    scale = math.log(3)
    method = CLAP(epochs=1, warmup_lr=0.8)

    classifier = method.fit(axes(scale), plane(AXES, [0, 1]), seed=0)

    # From w = t nothing pulls back; the gradient of the first class is (0, scale·1/4·1/2).
    step = 0.8 * scale / 8
    expected = torch.tensor([[1, -step], [-step, 1]]) / (1 + step**2) ** 0.5
    torch.testing.assert_close(classifier.embeddings, expected)
    assert classifier.scale == scale


def test_a_huge_constraint_makes_clap_zero_shot(backbone: Backbone) -> None:
    data = drawn(3, 2, 1)
    # The steps are as small as the constraint is large, or they would overshoot.
    held = CLAP(constraint=1e5, lr=1e-5).fit(backbone, data, seed=0)
    free = CLAP(constraint=0.0).fit(backbone, data, seed=0)

    text = zero_shot(backbone, data.prompt_names)
    assert (held.embeddings - text).abs().max() < 1e-3
    assert (free.embeddings - text).abs().max() > 1e-1


def test_clap_learns_after_its_first_epoch(backbone: Backbone) -> None:
    data = drawn(5, 5, 5)
    images = Images(data.features)

    warm, trained = (CLAP(epochs=n).fit(backbone, data, seed=0) for n in (1, 60))

    before = ZeroShot().fit(backbone, data, seed=0).logits(images)
    torch.testing.assert_close(warm.logits(images), before, atol=1e-2, rtol=0)
    assert not torch.equal(before.argmax(dim=1), data.labels)
    assert torch.equal(trained.logits(images).argmax(dim=1), data.labels)


@every_method
@pytest.mark.parametrize("counts", [(5, 4, 3), (6, 5, 1), (3, 1), (1, 1)])
def test_each_keeps_the_protocol(backbone: Backbone, method: Method, counts) -> None:
    data = drawn(*counts)
    kept = data.features.clone()

    classifier = method.fit(backbone, data, seed=3)

    assert isinstance(method, Method)
    assert isinstance(classifier, Classifier)
    assert not method.needs_pixels
    images = Images(drawn(2, 2).features)
    found = probabilities(classifier, images)
    assert found.shape == (4, len(counts))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4))
    assert torch.equal(classifier.image_features(images), images.features)
    assert torch.equal(data.features, kept)
    json.dumps(dict(classifier.settings))
    text = classifier.text_features
    assert text is None or text.shape == (len(counts), 16)


@every_method
def test_each_is_determined_by_its_seed(backbone: Backbone, method: Method) -> None:
    data, images = drawn(5, 4, 3), Images(drawn(2, 2, 2).features)

    torch.manual_seed(0)
    first = method.fit(backbone, data, seed=1).logits(images)
    torch.manual_seed(1)
    assert torch.equal(first, method.fit(backbone, data, seed=1).logits(images))
    draws = isinstance(method, TipAdapterF | CLAP)
    assert torch.equal(first, method.fit(backbone, data, seed=2).logits(images)) != draws


@every_method
def test_only_zero_shot_knows_classes_without_images(backbone: Backbone, method: Method) -> None:
    renamed = method.fit(backbone, drawn(2, 2), seed=0).renamed(["stain", "good"])

    assert (renamed is not None) == isinstance(method, ZeroShot)
    if renamed is not None:
        templates = method.templates
        text = zero_shot(backbone, ["stain", "good"], templates)
        assert torch.equal(renamed.text_features, text)
        assert renamed.settings == {"templates": templates}


@every_method
@pytest.mark.parametrize("labels", [[0, 0, 1], [2, 2, 2]])
def test_each_endures_a_class_without_images(backbone: Backbone, method: Method, labels) -> None:
    whole = drawn(1, 1, 1)
    data = TrainingSet(whole.prompt_names, whole.features, torch.tensor(labels))

    found = probabilities(method.fit(backbone, data, seed=0), Images(whole.features))

    assert bool(found.isfinite().all())


def test_on_photographs_the_starter_learns_colours() -> None:
    backbone = load_backbone(device="cpu")
    train, test = draw_images(3, 3, 3), draw_images(2, 2, 2, first=3)
    store = MemoryFeatureStore()

    def look(images: list[LabelledImage]) -> torch.Tensor:
        return image_features(images, backbone, View(), store)

    data = TrainingSet(["red", "blue", "green"], look(train), labels_of(train))
    images, labels = Images(look(test)), labels_of(test)
    for name, method in METHODS.items():
        predicted = method.fit(backbone, data, seed=0).logits(images).argmax(dim=1)
        # Those that have seen the colours know them; of the others an answer is enough.
        assert name.startswith(("zero-shot", "tip")) or torch.equal(predicted, labels), name


def labels_of(images: list[LabelledImage]) -> torch.Tensor:
    return torch.tensor([image.label for image in images])
