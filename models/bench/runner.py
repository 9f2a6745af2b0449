"""Runs the cells that have no result yet, in this process or in several."""

import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from typing import Any

import torch

from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.bench.cells import Cell
from models.bench.message import BackboneRef
from models.bench.results import CellResult, ResultFile
from models.bench.trial import Bench, LoadedSet, run_cell
from models.errors import BadRecipe, Refused, ShotlineError
from models.methods.catalogue import method
from models.progress import Progress, no_progress
from models.training_set import TrainingSet

Rows = list[CellResult]
# Closed when it is not listened to any more, so that nothing of it goes on.
Executor = Callable[[Sequence[Cell]], Generator[tuple[Cell, Rows], None, None]]


def load(ref: BackboneRef) -> Backbone:
    """Load the backbone that another process has loaded.

    Raises:
        BackboneUnavailable: see `load_backbone`.
        Refused: it is another one here.
    """
    backbone = load_backbone(
        ref.source, device=ref.device, precision=ref.precision, offline=ref.offline
    )
    if backbone.digest != ref.digest:
        raise Refused(
            f"The backbone {ref.source!r} is {backbone.digest} here; {ref.digest} is wanted.",
            fix="Give every process and machine the same weights.",
            field="backbone",
        )
    return backbone


def run_cells(
    cells: Sequence[Cell],
    results: ResultFile,
    execute: Executor,
    progress: Progress = no_progress,
) -> None:
    """Run what `results` lacks; whatever ends this early leaves there what was done.

    Raises:
        ShotlineError: of a cell that could not be run, which is named.
    """
    pending = [cell for cell in cells if results.lacks(cell)]
    done = len(cells) - len(pending)
    progress(done, len(cells))
    results.write()
    if not pending:
        return
    with closing(execute(pending)) as answers:
        for _, rows in answers:
            results.add(rows)
            done += 1
            progress(done, len(cells))


def check_methods(specs: Sequence[str], backbone: Backbone) -> None:
    """Refuse methods that are not known, or that the backbone cannot run.

    Methods that work on pixels are tried on two classes, as far as to the first pixel.

    Raises:
        BadRecipe: naming the method.
    """
    for spec in specs:
        how = method(spec)
        if not how.needs_pixels:
            continue
        features = torch.eye(2, backbone.embed_dim)
        trial = TrainingSet(["dog", "cat"], features, torch.tensor([0, 1]), pixels=_no_pixels)
        try:
            how.fit(backbone, trial, 0)
        except _PixelsAskedForError:
            continue
        except BadRecipe as error:
            raise BadRecipe(
                f"The method {spec!r} cannot run on {backbone.source!r}: {error.problem}",
                fix=error.fix,
                field="methods",
            ) from error


class _PixelsAskedForError(Exception):
    """A method accepted the backbone and began to work."""


def _no_pixels(indices: Any) -> Any:
    del indices
    raise _PixelsAskedForError


def serial(bench: Bench) -> Executor:
    """Return what runs cells one after the other, in this process."""

    def execute(cells: Sequence[Cell]) -> Generator[tuple[Cell, Rows], None, None]:
        for cell in cells:
            yield cell, named(cell, partial(run_cell, bench, cell))

    return execute


def parallel(backbone: BackboneRef, sets: dict[str, LoadedSet], jobs: int) -> Executor:
    """Return what runs cells in `jobs` processes; results come as they are done.

    Args:
        backbone: each process loads it for itself.
        sets: sent to each process once.
        jobs: how many.
    """

    def execute(cells: Sequence[Cell]) -> Generator[tuple[Cell, Rows], None, None]:
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(
            min(jobs, len(cells)),
            multiprocessing.get_context("spawn"),
            _start,
            (backbone, sets),
        )
        try:
            futures = {pool.submit(_run, cell): cell for cell in cells}
            yield from _as_completed(futures)
        finally:
            children = set(multiprocessing.active_children()) - before
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:  # a cell that runs would hold up whoever wants to leave
                child.terminate()
            for child in children:
                child.join()

    return execute


def _as_completed(futures: dict[Future[Rows], Cell]) -> Iterator[tuple[Cell, Rows]]:
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield futures[future], named(futures[future], future.result)


def named(cell: Cell, run: Callable[[], Rows]) -> Rows:
    """Run a cell; let its error say which it was.

    Raises:
        ShotlineError: of the same kind, with the cell in its text.
    """
    try:
        return run()
    except BrokenProcessPool as error:
        raise Refused(
            "A process of the bench was killed, most often because the memory ran out.",
            fix="Use fewer --jobs, then run the same command again: it goes on where it was.",
            field="jobs",
        ) from error
    except ShotlineError as error:
        error.problem = f"{cell}: {error.problem}"
        error.args = (f"{error.problem} {error.fix}",)
        raise


_bench: list[Bench] = []


def _start(backbone: BackboneRef, sets: dict[str, LoadedSet]) -> None:
    """Prepare a process of the pool."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends at once, without a traceback
    _bench.append(Bench(load(backbone), sets))


def _run(cell: Cell) -> Rows:
    (bench,) = _bench
    return run_cell(bench, cell)
