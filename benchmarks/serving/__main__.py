"""Evidence on serving: load generators against the real gateway, targets beside what was measured.

Run with `python -m benchmarks.serving [SCENARIO…] [--quick]`, without another load; about an hour
for all on two cores. Each scenario writes `benchmarks/results/serving_SCENARIO.json` and pictures
into `docs/figures/serving`; with `--quick` both go to `build/serving`.
"""

import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import RESULTS, write_results
from benchmarks.serving.measure import Check, as_json
from benchmarks.serving.scenarios import (
    beside_tuning,
    cold_start,
    overhead,
    overload,
    peers,
    poisson,
    promotions,
    saturation,
    ten_thousand,
)
from benchmarks.serving.stand import Bench, Outcome, write_photographs
from models.files import write_atomic

_ROOT = Path(__file__).parents[2]
_FIGURES, _QUICK = _ROOT / "docs/figures/serving", _ROOT / "build/serving"

SCENARIOS: dict[str, Callable[[Bench], Outcome]] = {
    "saturation": saturation.run,
    "overhead": overhead.run,
    "poisson": poisson.run,
    "beside_tuning": beside_tuning.run,
    "ten_thousand": ten_thousand.run,
    "promotions": promotions.run,
    "overload": overload.run,
    "cold_start": cold_start.run,
    "peers": peers.run,
}


def main(
    scenario: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(SCENARIOS)}; all by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short runs, to see that everything works.")
    ] = False,
) -> None:
    """Measure, print what was found beside its target, and write it down."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    wanted = scenario or list(SCENARIOS)
    unknown = [name for name in wanted if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"no scenario {', '.join(unknown)}; of {', '.join(SCENARIOS)}")
    for name in wanted:
        said = (sys.modules[SCENARIOS[name].__module__].__doc__ or "").partition("\n")[0]
        Console().print(f"[bold]{name}[/]: {said}")
        with tempfile.TemporaryDirectory(prefix="shotline-serving-") as folder:
            work = Path(folder)
            photographs, data_set = write_photographs(work / "photographs")
            outcome = SCENARIOS[name](Bench(quick, work, photographs, data_set))
        _write(name, outcome, quick=quick)
        Console().print(_table(name, outcome.checks))


def _write(name: str, outcome: Outcome, *, quick: bool) -> None:
    checks = {"checks": [check.as_json() for check in outcome.checks]}
    folder = _QUICK if quick else RESULTS
    content = as_json(checks | outcome.content)
    path = write_results(f"serving_{name}", content, folder=folder)
    Console().print(f"Written to {path.relative_to(_ROOT)}", highlight=False)
    for figure in outcome.figures:
        target = (_QUICK if quick else _FIGURES) / f"{name}_{figure.name}.svg"
        write_atomic(target, figure.svg().encode())


def _table(name: str, checks: Sequence[Check]) -> Table:
    table = Table("figure", "measured", "target", "met?", title=name)
    for check in checks:
        sign = "≤" if check.at_most else "≥"
        measured, target = f"{check.measured:.4g} {check.unit}", f"{check.target:.4g} {check.unit}"
        table.add_row(
            check.name, measured, f"{sign} {target}", "yes" if check.met else "[red]no[/]"
        )
    return table


if __name__ == "__main__":
    typer.run(main)
