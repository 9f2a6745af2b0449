"""Images judged together: what is found of each is what would be found of it alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.classes import Role
from models.trust.evidence import Evidence
from models.trust.judge import ROLES, Case, Findings, Judge, find_all
from models.trust.photograph import PhotographStatistics
from models.trust.rule import DecisionRule, Limit, OutlierRule

FOLDS = 3


def some_case(rng: np.random.Generator) -> Case:
    """A rule of random scores, of which a class may have none, and a photograph or none."""
    roles: tuple[Role, ...] = tuple(rng.choice(np.array(ROLES), rng.integers(2, 7)).tolist())

    def scores(count: int) -> list[list[list[float]]]:
        return [
            [rng.exponential(3, rng.integers(0, 9)).tolist() for _ in range(FOLDS)]
            for _ in range(count)
        ]

    outliers = OutlierRule(
        level=0.02,
        distance=Limit(middle=0.2, limit=0.5),
        energy=Limit(middle=0.0, limit=2.0),
        energy_middles=(-6.0, -5.0, -7.0),
        energy_spreads=(2.0, 3.0, 2.5),
        photograph=Limit(middle=0.5, limit=2.0),
        photograph_scales=(10.0, 0.3, 0.3, 0.1),
    )
    rule = DecisionRule(
        temperature=float(rng.uniform(0.5, 2)),
        folds=FOLDS,
        scores=scores(len(roles)),
        role_scores=dict(zip(ROLES, scores(len(ROLES)), strict=True)),
        outliers=outliers if rng.random() < 0.8 else None,
    )
    photographs = rng.normal(8, 2, (12, 4)).astype(np.float16)
    alpha = float(rng.choice([0.05, 0.1, 0.3]))
    return Case(Judge.of(rule, photographs), roles, alpha, None)


def seen_of(case: Case, rng: np.random.Generator) -> tuple[Evidence, Case]:
    count = len(case.roles)
    evidence = Evidence(
        rng.normal(0, 4, count).astype(np.float32),
        rng.normal(0, 4, (FOLDS, count)).astype(np.float32),
        float(rng.uniform(0.4, 1)),
    )
    photograph = PhotographStatistics(*rng.uniform([60, 20, 10, 0], [110, 60, 40, 1]).tolist())
    return evidence, case._replace(photograph=photograph if rng.random() < 0.7 else None)


def plain(found: Findings) -> list[object]:
    return [None if part is None else np.array(part).tolist() for part in found]


@given(st.integers(0, 10**6), st.integers(1, 9))
def test_together_is_one_by_one(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    cases = [some_case(rng) for _ in range(2)]
    asked: list[tuple[Evidence, Case | None]] = []
    for _ in range(images):
        evidence, case = seen_of(cases[int(rng.integers(2))], rng)
        asked.append((evidence, case if rng.random() < 0.8 else None))
    together = find_all(*zip(*asked, strict=True))
    alone = [find_all([evidence], [case])[0] for evidence, case in asked]
    assert [plain(found) for found in together] == [plain(found) for found in alone]


def test_one_image_by_hand() -> None:
    """The class's own scores 1, 2 and 5; two of three are as high as 1.3, which it has here."""
    rule = DecisionRule(
        temperature=2.0,
        folds=2,
        scores=[[[1.0, 2.0], [5.0]], [[], []]],
        role_scores={"ok": [[1.0, 2.0], [5.0]]},
        outliers=None,
    )
    logits = np.log(np.array([3.0, 8.0], dtype=np.float32))
    evidence = Evidence(2 * logits, np.stack([logits, logits]), 0.9)
    case = Case(Judge.of(rule, np.zeros((0, 4))), ("ok", "ng"), 0.3, None)
    (found,) = find_all([evidence], [case])
    np.testing.assert_allclose(found.probabilities, [3 / 11, 8 / 11], rtol=1e-6)
    assert found.p_values is not None and found.role_p_values is not None  # noqa: PT018
    # The second class has no score of its own: it is compared with all three, -log 8/11 = 0.32.
    np.testing.assert_allclose(found.p_values, [3 / 4, 4 / 4])
    np.testing.assert_allclose(found.role_p_values, [3 / 4, 1, 1])
    assert found.groups == (3, 0, 0)
