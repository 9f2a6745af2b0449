"""The candidate's answer to an image that production decided on, from the same features.

The image is encoded once. The writer of records scores it, behind the line's back: the answer does
not wait for it, and what goes wrong here is counted and nothing else.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from app.predictions.embeddings import Head, evidence
from app.predictions.model import ResidentModel
from app.predictions.schemas import shown_decision
from models.decision import decide
from models.trust.evidence import Evidence
from models.trust.photograph import PhotographStatistics
from models.trust.policy import DecisionPolicy


class Seen(NamedTuple):
    """What production decided on an image by.

    Attributes:
        features: of the image.
        photograph: its statistics.
        policy: what the project asks of decisions.
    """

    features: Float[np.ndarray, " embed_dim"]
    photograph: PhotographStatistics | None
    policy: DecisionPolicy


class Shadow(NamedTuple):
    """What it takes to have the candidate decide on an image.

    Attributes:
        model: the candidate.
        head: its rows in the store of embeddings.
        seen: the image.
    """

    model: ResidentModel
    head: Head
    seen: Seen


def shadow_of(candidate: ResidentModel, production: ResidentModel, seen: Seen) -> Shadow | None:
    """Return what scores an image by the candidate; None where production's features do not fit it.

    They are of another backbone, or of another view of the image.
    """
    same = (
        candidate.backbone_digest == production.backbone_digest
        and candidate.view == production.view
    )
    if not same or candidate.head is None:
        return None
    return Shadow(candidate, candidate.head, seen)


def answers(shadows: Sequence[Shadow], decided: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of `shadow_answers`, in one multiplication.

    Args:
        shadows: of one store of embeddings.
        decided: the records of the same images, as production's.
    """
    features = np.stack([shadow.seen.features for shadow in shadows])
    found = evidence(features, [shadow.head for shadow in shadows])
    return [
        _row(shadow, record, row)
        for shadow, record, row in zip(shadows, decided, found, strict=True)
    ]


def _row(shadow: Shadow, record: dict[str, Any], found: Evidence) -> dict[str, Any]:
    model, seen = shadow.model, shadow.seen
    made = shown_decision(
        decide(
            model.labels,
            found,
            judge=model.judge,
            policy=seen.policy,
            photograph=seen.photograph,
        )
    )
    differs = (made["decision"], made["label"]) != (record["decision"], record["label"])
    return {
        "prediction_id": record["id"],
        "project_id": record["project_id"],
        "version_id": shadow.model.id,
        "decision": made["decision"],
        "label": made["label"],
        "probability": made["probability"],
        "probabilities": made["probabilities"],
        "differs": differs,
    }
