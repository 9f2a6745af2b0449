"""Why a decision is what it is: a closed list of words for machines, a sentence each for people."""

from collections.abc import Mapping
from typing import Final, Literal, get_args

Reason = Literal[
    "certain",
    "most_probable",
    "least_cost",
    "no_class_fits",
    "mixed_roles",
    "role_other",
    "too_few_images",
    "unlike_training_images",
    "photograph_dark",
    "photograph_bright",
    "photograph_blurred",
    "photograph_unusual",
    "review_costs_less",
    "budget",
    "budget_not_held",
]

SENTENCES: Final[Mapping[Reason, str]] = {
    "certain": "Every class that the image could be of leads to this decision.",
    "most_probable": "The most probable class decides: the version carries no decision rule.",
    "least_cost": "Of all decisions this one is expected to cost least.",
    "no_class_fits": "The image fits none of the classes as their own images do.",
    "mixed_roles": "The image could be of a good class as well as of a bad one.",
    "role_other": "The image could be of a class that decides nothing.",
    "too_few_images": "The version was tuned on too few images to be as sure as is asked.",
    "unlike_training_images": "The image is unlike all images that the version was tuned on.",
    "photograph_dark": "The photograph is darker than any that the version was tuned on.",
    "photograph_bright": "The photograph is brighter than any that the version was tuned on.",
    "photograph_blurred": "The photograph has less detail than any that the version was tuned on.",
    "photograph_unusual": "Light and detail of the photograph are unlike those in tuning.",
    "review_costs_less": "To have a person look costs less than either decision is expected to.",
    "budget": "To decide would exceed the project's budget of wrong decisions.",
    "budget_not_held": "The version was tuned on too few images to keep the project's budget.",
}
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
# Of an image that is not one to decide on, whatever class is the most probable.
UNLIKE: Final[frozenset[Reason]] = frozenset(
    {
        "unlike_training_images",
        "photograph_dark",
        "photograph_bright",
        "photograph_blurred",
        "photograph_unusual",
    }
)
