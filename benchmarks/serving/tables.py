"""The tables of `docs/serving.md`, from what `python -m benchmarks.serving` wrote.

Run with `python -m benchmarks.serving.tables`; it prints Markdown.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.common import RESULTS

_SCENARIOS = (
    "saturation",
    "overhead",
    "poisson",
    "beside_tuning",
    "ten_thousand",
    "promotions",
    "overload",
    "cold_start",
    "peers",
)


def main() -> None:
    """Print every figure beside its target, then the peers."""
    results = {name: found for name in _SCENARIOS if (found := _read(name)) is not None}
    print(targets(results))
    if "peers" in results:
        print(peers(results["peers"]))


def targets(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a row for each check of each scenario."""
    lines = [
        [name, check["name"], _figure(check, "measured"), _target(check), _met(check)]
        for name, found in results.items()
        for check in found["checks"]
        if name != "peers"
    ]
    return _table(["scenario", "figure", "measured", "target", "met"], lines)


def peers(found: Mapping[str, Any]) -> str:
    """Return a row for each server on each backbone: medians over rounds."""
    lines = [
        [
            backbone,
            name,
            f"{figures['per_second']:.1f}",
            f"{figures['p99_ms']:.0f}",
            f"{figures['open_p99_ms']:.0f}",
        ]
        for backbone, result in found["found"].items()
        for name, figures in result["median"].items()
    ]
    columns = ["backbone", "server", "images a second", "p99, closed, ms", "p99, one rate, ms"]
    return _table(columns, lines)


def _read(name: str) -> dict[str, Any] | None:
    path = RESULTS / f"serving_{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return found


def _figure(check: Mapping[str, Any], key: str) -> str:
    return "none" if check[key] is None else f"{check[key]:.4g} {check['unit']}".strip()


def _target(check: Mapping[str, Any]) -> str:
    return f"{'≤' if check['at_most'] else '≥'} {_figure(check, 'target')}"


def _met(check: Mapping[str, Any]) -> str:
    return "yes" if check["met"] else "**no**"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    main()
