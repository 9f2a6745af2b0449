"""`shotline bench`: methods against each other on labelled photographs."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from app.cli.console import err, out, plain, progress_bar
from app.cli.options import (
    BackboneOption,
    DeviceOption,
    OnlineOption,
    PrecisionOption,
    check_output,
    load,
)
from app.cli.tune import default_store
from models.errors import BadInput

if TYPE_CHECKING:
    from models.backbone import Backbone
    from models.bench.cells import Cell
    from models.bench.data import BenchSet, SourceRef
    from models.bench.leaderboard import Leaderboard
    from models.bench.message import BackboneRef
    from models.bench.results import ResultFile
    from models.bench.runner import Executor

_PAGE_ALONE = ("ECE", "tuning, s")


def bench(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="A folder or zip with one folder of photographs per class, a CSV or TSV, a"
            " split_zhou_*.json, or a .jsonl."
        ),
    ],
    methods: Annotated[
        str, typer.Option(help="With commas between; all, all-text and baselines are groups.")
    ] = "all-text",
    shots: Annotated[
        str, typer.Option(help="Training images of each class, or of the largest.")
    ] = "16",
    tau: Annotated[
        str, typer.Option(help="Training images of the smallest class over the largest.")
    ] = "1",
    seeds: Annotated[str, typer.Option(help="Of draws and methods.")] = "1,2,3",
    protocol: Annotated[
        Literal["few-shot", "base-to-novel", "cross-dataset", "domain"],
        typer.Option(help="What is learnt on and tested on; see docs/command-line.md."),
    ] = "few-shot",
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Compare the terms of the loss, not --methods.")
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Keep results here; what stands there is not run again.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="A folder for the pictures and the page.")
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(help="A line per image: path, tab, part. NAME=FILE where sets are several."),
    ] = None,
    prompts: Annotated[
        list[str] | None,
        typer.Option(help="YAML, class: what the text encoder reads. NAME=FILE as above."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(help="The folder that paths in a file begin at. NAME=FOLDER as above."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes [default: one per core; one on a GPU].")
    ] = None,
    queue: Annotated[
        bool,
        typer.Option(
            "--queue",
            help="Send the cells to all workers of SHOTLINE_QUEUE_URL, which read the data by the"
            " same paths.",
        ),
    ] = False,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    features: Annotated[
        Path | None, typer.Option(help="The feature store [default: the user's cache folder].")
    ] = None,
) -> None:
    """Compare tuners and baselines over shots, imbalance and seeds."""
    from app.cli import bench_inputs

    grid = (
        bench_inputs.read_shots(shots),
        bench_inputs.read_taus(tau),
        bench_inputs.read_seeds(seeds),
    )
    refs = bench_inputs.read_sources(folders, images or [], groups or [], prompts or [])
    names = [ref.name for ref in refs]
    bench_inputs.check_protocol(protocol, names)
    _check_places(json, plots)
    specs = bench_inputs.read_methods(_ablation() if ablation else methods)

    from models.bench.cells import list_cells
    from models.bench.machine import describe
    from models.bench.protocols import check_cells
    from models.bench.results import ResultFile
    from models.bench.runner import check_methods

    cells = list_cells(names, protocol, specs, *grid)
    sets = {ref.name: _read(ref) for ref in refs}
    check_cells(cells, sets)
    with err.status("Loading the backbone …"):
        loaded = load(backbone, device, precision, online=online)
    check_methods(specs, loaded)
    digests = {name: data.digest for name, data in sets.items()}
    command = shlex.join(["shotline", *sys.argv[1:]])
    results = ResultFile(json, describe(loaded, command, digests), cells)
    pending = sum(results.lacks(cell) for cell in cells)
    if pending:
        ref = _reference(loaded, offline=not online)
        if queue:
            execute = _on_workers(ref, refs, digests)
        else:
            processes = min(pending, jobs or _default_jobs(loaded))
            execute = _here(loaded, ref, sets, features, processes)
        _run(cells, results, execute, json)
    _finish(results, json, plots)


def _ablation() -> str:
    from models.bench.ablation import ablation_methods

    return ",".join(ablation_methods())


def _check_places(json: Path | None, plots: Path | None) -> None:
    """Refuse places that could not be written to, before any work is done."""
    if json is not None:
        check_output(json, force=True)
    if plots is not None:
        if plots.exists() and not plots.is_dir():
            raise BadInput(
                f"--plots {plots} is a file; a folder is filled.",
                fix="Name a folder.",
                field="plots",
            )
        plots.mkdir(parents=True, exist_ok=True)
        check_output(plots / "bench.html", force=True)


def _read(ref: "SourceRef") -> "BenchSet":
    from models.bench.sources import read_source

    with progress_bar() as bar:
        task = bar.add_task(f"Reading {ref.name}", total=None, note="")
        return read_source(ref, lambda done, total: bar.update(task, completed=done, total=total))


def _reference(backbone: "Backbone", *, offline: bool) -> "BackboneRef":
    from models.bench.message import BackboneRef

    return BackboneRef(
        source=backbone.source,
        device="cuda" if backbone.device.type == "cuda" else "cpu",
        precision=backbone.precision,
        offline=offline,
        digest=backbone.digest,
    )


def _on_workers(
    backbone: "BackboneRef", refs: "list[SourceRef]", digests: dict[str, str]
) -> "Executor":
    from app.cli.bench_queue import queued
    from app.core.settings import QueueSettings
    from models.bench.message import Plan

    return queued(Plan(sources=refs, digests=digests, backbone=backbone), QueueSettings())


def _here(
    backbone: "Backbone",
    ref: "BackboneRef",
    sets: "dict[str, BenchSet]",
    features: Path | None,
    jobs: int,
) -> "Executor":
    """Compute the features of all sets first, each image once, and return what runs the cells."""
    from models.bench.runner import parallel, serial
    from models.bench.trial import Bench, load_set
    from models.features import FolderFeatureStore

    store = FolderFeatureStore(features or default_store())
    loaded = {}
    for name, data in sets.items():
        with progress_bar() as bar:
            task = bar.add_task(f"Encoding {name}", total=None, note="")
            loaded[name] = load_set(
                data,
                backbone,
                store,
                lambda done, total: bar.update(task, completed=done, total=total),  # noqa: B023
            )
    return parallel(ref, loaded, jobs) if jobs > 1 else serial(Bench(backbone, loaded))


def _default_jobs(backbone: "Backbone") -> int:
    return 1 if backbone.device.type == "cuda" else len(os.sched_getaffinity(0))


def _run(
    cells: "list[Cell]", results: "ResultFile", execute: "Executor", json: Path | None
) -> None:
    from models.bench.runner import run_cells

    with progress_bar() as bar:
        task = bar.add_task("Running cells", note="")
        try:
            run_cells(
                cells,
                results,
                execute,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        except KeyboardInterrupt:
            _stopped(json)


def _stopped(json: Path | None) -> None:
    kept = "nothing is kept without --json" if json is None else f"what was done stands in {json}"
    err.print(plain(f"Stopped; {kept}."), soft_wrap=True)
    raise typer.Exit(130)


def _finish(results: "ResultFile", json: Path | None, plots: Path | None) -> None:
    from models.bench.leaderboard import leaderboards

    content = results.content
    for board in leaderboards(content.results):
        out.print(_table(board))
    if json is not None:
        out.print(plain(f"Results {json}"), soft_wrap=True)
    if plots is not None:
        from models.bench.write import PAGE, write_plots

        write_plots(content, plots)
        out.print(plain(f"Page    {plots / PAGE}"), soft_wrap=True)


def _table(board: "Leaderboard") -> Table:
    """Return what fits into a terminal; the page has it all."""
    table = Table(title=board.title, caption=board.caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("Method", overflow="fold", min_width=14)
    shown = [place for place, name in enumerate(board.columns) if name not in _PAGE_ALONE]
    for place in shown:
        table.add_column(plain(board.columns[place]), justify="right", overflow="fold")
    for method, cells in board.rows:
        # A narrow terminal may break a cell before the deviation.
        row = [cells[place].replace("\N{NO-BREAK SPACE}", " ", 1) for place in shown]
        table.add_row(plain(method), *row)
    return table
