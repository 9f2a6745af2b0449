"""What is sent to whoever runs a cell elsewhere, and what comes back; as JSON.

No torch here.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from models.bench.cells import Cell
from models.bench.data import SourceRef
from models.bench.results import CellResult


class BackboneRef(BaseModel):
    """How another process loads the same backbone, and the digest that it must have."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    offline: bool
    digest: str


class Plan(BaseModel):
    """What all cells of a run share.

    Attributes:
        sources: read by the same paths wherever a cell runs.
        digests: of the data sets, which must be the same there, by their names.
        backbone: see `BackboneRef`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: list[SourceRef]
    digests: dict[str, str]
    backbone: BackboneRef


class BenchTask(BaseModel):
    """A cell, its number in its run, and the run's plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    number: int
    cell: Cell
    plan: Plan


class Failure(BaseModel):
    """Why a cell could not be run: the words of a `ShotlineError`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: str
    fix: str


class Answer(BaseModel):
    """The results of a cell, or why there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    rows: list[CellResult] = []
    failure: Failure | None = None
