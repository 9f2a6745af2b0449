"""Cells: what is run once each, and how all of them are listed."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

Protocol = Literal["few-shot", "base-to-novel", "cross-dataset", "domain"]
# Learnt on one set, tested on others.
ACROSS: tuple[Protocol, ...] = ("cross-dataset", "domain")


_ARROW = "->"


class Key(NamedTuple):
    """What a result is found by."""

    dataset: str
    protocol: str
    method: str
    shots: int
    tau: float
    seed: int


class Cell(BaseModel):
    """One method, learnt once.

    Attributes:
        dataset: the name of the set that it is learnt on.
        targets: the sets that it is tested on beside, by the protocol.
        method: its spec, such as `coop+lc+mi`.
        shots: training images of each class; of the largest one where tau is below 1.
        tau: of the class counts, smallest over largest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    protocol: Protocol
    targets: tuple[str, ...] = ()
    method: str
    shots: int
    tau: float
    seed: int

    @property
    def keys(self) -> list[Key]:
        """The keys of its results: its own set first, then the targets."""
        names = [self.dataset, *(result_name(self.dataset, target) for target in self.targets)]
        return [
            Key(name, self.protocol, self.method, self.shots, self.tau, self.seed) for name in names
        ]

    def __str__(self) -> str:
        return (
            f"{self.method} on {self.dataset} ({self.protocol}, {self.shots} shots,"
            f" tau {self.tau:g}, seed {self.seed})"
        )


def result_name(source: str, target: str) -> str:
    """Return what a result calls the data where it was learnt on one set and tested on another."""
    return f"{source}{_ARROW}{target}"


def is_target(name: str) -> bool:
    """Say whether a result of that name is of another set than the one learnt on."""
    return _ARROW in name


def list_cells(
    datasets: Sequence[str],
    protocol: Protocol,
    methods: Sequence[str],
    shots: Sequence[int],
    taus: Sequence[float],
    seeds: Sequence[int],
) -> list[Cell]:
    """Return every combination once, method by method within a setting.

    Across data sets and domains, the first set is the one that is learnt on.
    """
    across = protocol in ACROSS
    sources, targets = (datasets[:1], tuple(datasets[1:])) if across else (datasets, ())
    return [
        Cell(
            dataset=dataset,
            protocol=protocol,
            targets=targets,
            method=method,
            shots=n,
            tau=tau,
            seed=seed,
        )
        for dataset, n, tau, seed, method in product(sources, shots, taus, seeds, methods)
    ]
