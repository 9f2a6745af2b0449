"""What each term of the loss brings: the methods that `shotline bench --ablation` compares."""

BASE = "coop"

# From plain cross-entropy to all terms, and what figures call them.
TERMS = {
    BASE: "CE",
    f"{BASE}+lc": "+LC",
    f"{BASE}+mi": "+MI",
    f"{BASE}+lc+mi": "+LC+MI",
    f"{BASE}+la": "+LA",
    f"{BASE}+lc+mi+la": "+LC+MI+LA",
}
# The regularisers' other forms.
FORMS = {
    f"{BASE}+lc+lc_form=anchored": "+LC, anchored",
    f"{BASE}+mi+mi_form=gram": "+MI, Gram",
}
# A regulariser alone, at weights around its default.
WEIGHTS = {
    "lc": ("0.01", "0.1", "10"),
    "mi": ("0.2", "1", "25"),
}
GRID = {
    f"{BASE}+{term}={weight}": f"+{term.upper()}, weight {weight}"
    for term, weights in WEIGHTS.items()
    for weight in weights
}

LABELS = TERMS | FORMS | GRID


def ablation_methods() -> list[str]:
    """Return the specs of all methods of the ablation, in the order of its figure."""
    return list(LABELS)
