"""Evidence on faults: real processes are killed, stopped and starved, and all else is counted.

Run with `python -m benchmarks.faults [NAME…]`. Each scenario writes
`benchmarks/results/faults/NAME.json`; `--add` keeps the runs that are there and adds one more, and
`--quick` writes to `build/faults`. The same scenarios run in small in `tests/faults`.
"""

import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer
from rich.console import Console

from benchmarks.common import RESULTS, meta
from models.files import write_atomic

Report = Callable[[str], None]


class Scenario(Protocol):
    """A module of `benchmarks.faults`."""

    def run(self, home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
        """Bring the faults about.

        Args:
            home: an empty folder with a short path.
            quick: in small, for a test.
            report: told how it goes.

        Returns:
            What was found. `checks` holds, for each thing that has to hold, whether it did.
        """
        ...


# A scenario's name, and the module of it.
SCENARIOS = {
    "workers": "benchmarks.faults.workers",
    "redis": "benchmarks.faults.redis",
    "gateway": "benchmarks.faults.gateway",
    "gateway_postgres": "benchmarks.faults.gateway_postgres",
    "postgres": "benchmarks.faults.postgres",
    "outage": "benchmarks.faults.outage",
    "disk": "benchmarks.faults.disk",
    "soak": "benchmarks.faults.soak",
    "redis_away": "benchmarks.faults.redis_away",
    "schemathesis": "benchmarks.faults.schemathesis_run",
    "hostile": "benchmarks.faults.hostile",
}

_ROOT = Path(__file__).parents[2]
_FULL, _QUICK = RESULTS / "faults", _ROOT / "build/faults"


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(SCENARIOS)}; all by default.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="In small.")] = False,
    add: Annotated[bool, typer.Option("--add", help="Keep the runs that are there.")] = False,
) -> None:
    """Run the scenarios, and write down what was found; the exit code is 1 where one failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    unknown = [name for name in names or () if name not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"no scenario {', '.join(unknown)}; of {', '.join(SCENARIOS)}")
    held = [_run(name, quick=quick, add=add) for name in names or SCENARIOS]
    if not all(held):
        raise typer.Exit(1)


def _run(name: str, *, quick: bool, add: bool) -> bool:
    """Run a scenario and write it down; say whether all held."""
    console, started = Console(), time.monotonic()

    def report(text: str) -> None:
        console.print(f"{time.monotonic() - started:7.1f} s  {text}", highlight=False)

    scenario = cast("Scenario", import_module(SCENARIOS[name]))
    said = (import_module(SCENARIOS[name]).__doc__ or "").partition("\n")[0]
    console.print(f"[bold]{name}[/]: {said}")
    with tempfile.TemporaryDirectory(prefix="shotline-faults-") as folder:
        found = scenario.run(Path(folder), quick=quick, report=report)
    path = (_QUICK if quick else _FULL) / f"{name}.json"
    run = {"meta": meta(), "seconds": round(time.monotonic() - started, 1)} | found
    before = json.loads(path.read_text())["runs"] if add and path.exists() else []
    write_atomic(path, (json.dumps({"runs": [*before, run]}, indent=2) + "\n").encode())
    for check, held in found["checks"].items():
        console.print(f"  {'held' if held else '[red]BROKEN[/]'}: {check}", highlight=False)
    console.print(f"Written to {path.relative_to(_ROOT)}", highlight=False)
    return all(found["checks"].values())


if __name__ == "__main__":
    typer.run(main)
