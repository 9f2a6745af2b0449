"""What the starter's kernel regression should learn from: ``python -m benchmarks.starter_teacher``.

A training decision, so it uses no image: the names of 100 ImageNet classes are left out, and the
regression predicts their classifier rows from their texts. Counted is how often the prediction
lies nearest to its own row among the 100. Needs the extra ``starter``.
"""

from collections.abc import Callable, Sequence
from statistics import mean

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from models.starter.phrases import dictionary, imagenet_names
from models.starter.student import EMBED_DIM
from models.starter.teacher import (
    KernelRidge,
    SentenceEncoder,
    load_classifier,
    project_classifier,
)

DRAWS = 3
LEFT_OUT = 100

Texts = Sequence[Sequence[str]]  # of each class


def row_accuracy(
    anchors: Texts, queries: Sequence[str], rows: Tensor, encode: Callable[..., Tensor], seed: int
) -> float:
    """Percentage of left-out classes whose prediction is nearest to their own row.

    `rows` is `(n_classes, embed_dim)`, normalised; one query for each class.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    left_out, rest = order[:LEFT_OUT], order[LEFT_OUT:]
    known = [(text, index) for index in rest.tolist() for text in anchors[index]]
    embeddings = encode([text for text, _ in known])
    regression = KernelRidge(embeddings, rows[[index for _, index in known]])
    predicted = regression.predict(encode([queries[index] for index in left_out.tolist()]))
    nearest = (normalize(predicted, dim=1) @ rows[left_out].T).argmax(dim=1)
    return 100.0 * (nearest == torch.arange(LEFT_OUT)).double().mean().item()


def main() -> None:
    """Print a table: a row for each choice of anchors, a column for each kind of query."""
    encode = SentenceEncoder()
    rows = project_classifier(load_classifier(), EMBED_DIM).rows
    names, entries = imagenet_names(), dictionary("imagenet-1k")
    plain = [spellings[0] for spellings in names]
    choices: dict[str, Texts] = {
        "open_clip's name": [[name] for name in plain],
        "every spelling": names,
        "name and WordNet's entry": list(zip(plain, entries, strict=True)),
    }
    title = f"Nearest to its own row among {LEFT_OUT} left-out names, %, {DRAWS} draws"
    table = Table("regression learns from", "asked by name", "asked by entry", title=title)
    for choice, anchors in choices.items():
        found = [
            [row_accuracy(anchors, queries, rows, encode, seed) for seed in range(DRAWS)]
            for queries in (plain, entries)
        ]
        table.add_row(choice, *(f"{mean(f):.0f} ({min(f):.0f}-{max(f):.0f})" for f in found))
    Console().print(table)


if __name__ == "__main__":
    main()
