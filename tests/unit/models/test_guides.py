"""KgCoOp, ProGrad and CPT: their terms by hand, and what each becomes at its limits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from models.backbone import Backbone
from models.backbone_files import STARTER
from models.backbone_source import load_backbone
from models.baselines.zero_shot import zero_shot
from models.methods.cpt import CPT, grouped_etf_loss, groups
from models.methods.guide import Guide, Unguided, guide_of
from models.methods.kgcoop import KgCoOp
from models.methods.prograd import ProGrad
from models.recipe import Recipe
from models.training_set import TrainingSet
from models.tuner import Tuner
from tests.unit.models.matrices import random_matrix

NAMES = ["good", "scratch", "stain"]
FEATURES = normalize(random_matrix(9, 16, 0).float(), dim=1)
DATA = TrainingSet(NAMES, FEATURES, torch.arange(9) % 3)
SHORT = {"steps": 12, "warmup_steps": 1, "batch_size": 9, "threads": 1, "lr": 0.5}


def tune(backbone: Backbone, **values: Any) -> Tensor:
    recipe = Recipe(**(SHORT | values))
    return Tuner(backbone, DATA, recipe, torch.Generator().manual_seed(0)).run()


@pytest.mark.parametrize(
    ("method", "kind"),
    [("coop", Unguided), ("kgcoop", KgCoOp), ("prograd", ProGrad), ("cpt", CPT)],
)
def test_the_recipe_names_the_guide(backbone: Backbone, method: str, kind: type[Guide]) -> None:
    assert isinstance(guide_of(Recipe(method=method), backbone, DATA), kind)


@pytest.mark.parametrize("method", ["kgcoop", "prograd", "cpt"])
def test_without_guidance_every_method_is_coop(backbone: Backbone, method: str) -> None:
    coop = tune(backbone, method="coop")

    torch.testing.assert_close(tune(backbone, method=method, guidance=0.0), coop)
    assert not torch.allclose(tune(backbone, method=method, guidance=5.0), coop, atol=1e-4)


def test_kgcoop_by_hand(backbone: Backbone) -> None:
    guide = KgCoOp(backbone, NAMES, guidance=1.0)
    written = zero_shot(backbone, NAMES)
    across = normalize(random_matrix(3, 16, 2).float(), dim=1)
    across = across - (across * written).sum(dim=1, keepdim=True) * written  # at right angles

    torch.testing.assert_close(guide.term(3 * written, FEATURES), torch.tensor(0.0))
    torch.testing.assert_close(guide.term(across, FEATURES), torch.tensor(8.0))


def test_kgcoop_with_a_huge_weight_is_zero_shot() -> None:
    starter = load_backbone(STARTER, device="cpu")
    features = normalize(random_matrix(9, starter.embed_dim, 0).float(), dim=1)
    data = TrainingSet(NAMES, features, DATA.labels)
    written = zero_shot(starter, NAMES)

    def nearness(guidance: float, lr: float) -> float:
        values = SHORT | {"steps": 20, "lr": lr, "method": "kgcoop", "guidance": guidance}
        recipe, generator = Recipe(**values), torch.Generator().manual_seed(0)
        text = Tuner(starter, data, recipe, generator).run()
        return (text * written).sum(dim=1).min().item()

    assert nearness(guidance=0.0, lr=0.05) < 0.9
    assert nearness(guidance=1.0, lr=0.05) > 0.9
    assert nearness(guidance=100.0, lr=0.005) > 0.9999


def gradients(guide: ProGrad, loss: Tensor, term: Tensor) -> list[float]:
    """Return the gradient that the guide sets, of a loss and a term of one parameter's products."""
    ctx = nn.Parameter(torch.tensor([1.0, 1.0]))
    guide.backward((loss * ctx).sum(), (term * ctx).sum(), ctx)
    assert ctx.grad is not None
    return ctx.grad.tolist()


def test_prograd_takes_away_what_opposes(backbone: Backbone) -> None:
    whole, half = ProGrad(backbone, NAMES, 1.0), ProGrad(backbone, NAMES, 0.5)
    loss = torch.tensor([1.0, 1.0])

    # (1, 1) against (-2, 0): the opposing part of (1, 1) is (1, 0).
    assert gradients(whole, loss, torch.tensor([-2.0, 0.0])) == [0.0, 1.0]
    assert gradients(half, loss, torch.tensor([-2.0, 0.0])) == [0.5, 1.0]
    # What agrees is left as it is.
    assert gradients(whole, loss, torch.tensor([2.0, 0.0])) == [1.0, 1.0]


def test_prograds_term_is_least_at_zero_shot(backbone: Backbone) -> None:
    guide = ProGrad(backbone, NAMES, 1.0)
    written, other = zero_shot(backbone, NAMES), random_matrix(3, 16, 4).float()

    probabilities = (backbone.logit_scale * FEATURES @ written.T).softmax(dim=1)
    entropy = -(probabilities * probabilities.log()).sum(dim=1).mean()
    torch.testing.assert_close(guide.term(written, FEATURES), entropy)
    assert guide.term(other, FEATURES) > entropy


def test_the_grouped_etf_by_hand() -> None:
    # Two at right angles want a cosine of -1: twice (0 + 1)^2; three of the same want -1/2: six
    # times (1 + 1/2)^2; one alone wants nothing. Over three groups.
    unit = torch.eye(4)[[0, 1, 2, 2, 2, 3]]

    loss = grouped_etf_loss(unit, [[0, 1], [2, 3, 4], [5]])
    torch.testing.assert_close(loss, torch.tensor((2 + 6 * 2.25) / 3))


def test_classes_of_like_texts_are_one_group() -> None:
    texts = torch.eye(4)[[0, 1, 0, 1]] + 0.01 * random_matrix(4, 4, 0).float()

    assert sorted(sorted(group) for group in groups(texts)) == [[0, 2], [1, 3]]
    assert sorted(len(group) for group in groups(torch.eye(3)[:2])) == [2]  # round(sqrt(2)) is 1


def test_cpt_by_hand(backbone: Backbone) -> None:
    guide = CPT(backbone, DATA, guidance=2.0)
    tokens = backbone.tokenize([f"a photo of a {name}." for name in NAMES])
    written = backbone.text(backbone.text.embed(tokens))
    text = random_matrix(3, 16, 7).float()

    unit = normalize(text, dim=1)
    cc = sum((FEATURES[DATA.labels == c] - unit[c]).square().sum(dim=1).mean() for c in range(3))
    rs = (text - written).abs().sum(dim=1).mean()
    tetf = grouped_etf_loss(unit, groups(normalize(written, dim=1)))
    expected = 2.0 * (0.25 * tetf + 0.15 * cc / 3 + 0.10 * rs)
    torch.testing.assert_close(guide.term(text, FEATURES), expected)


def test_the_guides_term_is_in_the_history(backbone: Backbone) -> None:
    recipe = Recipe(**SHORT, method="kgcoop")
    tuner = Tuner(backbone, DATA, recipe, torch.Generator().manual_seed(0))
    tuner.run()

    assert all(record.guide > 0 for record in tuner.history[1:])
