"""The tables of `docs/results.md`, from what `python -m benchmarks.science` wrote.

Run with `python -m benchmarks.tables`; it prints Markdown.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean, stdev

import typer

from benchmarks.common import base_novel_h, bench_rows
from models.bench.results import CellResult


def main() -> None:
    """Print all tables."""
    print("### tau 0.06, 16 images of the largest class\n")
    print(by_set(bench_rows("unbalanced"), "macro"))
    print("### tau 0.06, accuracy on classes of at most 3 images\n")
    print(by_set(bench_rows("unbalanced"), "tail_macro"))
    for shots in (16, 4, 1):
        rows = [row for row in bench_rows("balanced") if row.shots == shots]
        print(f"### Balanced, {shots} images of each class\n")
        print(by_set(rows, "macro"))
    print("### Base-to-novel, clothing10, 16 images of each class\n")
    print(base_to_novel(bench_rows("base_to_novel")))
    print("### Ablation, tau 0.06: macro accuracy above cross-entropy alone\n")
    print(ablation(bench_rows("ablation")))
    print("### Calibration: expected calibration error, tau 0.06\n")
    print(by_set(bench_rows("unbalanced"), "ece", lowest_first=True))


def by_set(rows: Sequence[CellResult], key: str, *, lowest_first: bool = False) -> str:
    """Return a table of methods by data sets, in percent, with the mean and its spread over seeds.

    The spread is the standard deviation, over seeds, of the mean over data sets.
    """
    sets = list(dict.fromkeys(row.dataset for row in rows if getattr(row, key) is not None))
    cells: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        value = getattr(row, key)
        if value is not None:
            cells[row.method][row.dataset][row.seed] = 100 * value
    lines = []
    for method, found in cells.items():
        values = [mean(found[name].values()) for name in sets]
        seeds = sorted(set.intersection(*(set(found[name]) for name in sets)))
        means = [mean(found[name][seed] for name in sets) for seed in seeds]
        spread = f" ± {stdev(means):.1f}" if len(means) > 1 else ""
        shown = [method, *(f"{value:.1f}" for value in values), f"{mean(values):.1f}{spread}"]
        lines.append((mean(values), shown))
    lines.sort(key=lambda line: line[0] if lowest_first else -line[0])
    return _table(["method", *sets, "mean"], [line[1] for line in lines])


def base_to_novel(rows: Sequence[CellResult]) -> str:
    """Return base, novel, and the harmonic mean of their means over seeds, in percent."""
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        figures = base_novel_h(rows, method)
        lines.append((figures[-1], [method, *(f"{value:.1f}" for value in figures)]))
    lines.sort(key=lambda line: -line[0])
    return _table(["method", "base", "novel", "H"], [line[1] for line in lines])


def ablation(rows: Sequence[CellResult]) -> str:
    """Return the paired difference of each method from `coop`, by data set, with its spread."""
    macro = {(r.dataset, r.method, r.seed): 100 * r.macro for r in rows if r.macro is not None}
    sets = list(dict.fromkeys(row.dataset for row in rows))
    seeds = sorted({row.seed for row in rows})

    def difference(method: str) -> Callable[[str], str]:
        def shown(name: str) -> str:
            found = [macro[name, method, seed] - macro[name, "coop", seed] for seed in seeds]
            return f"{mean(found):+.1f} ± {stdev(found):.1f}"

        return shown

    methods = list(dict.fromkeys(row.method for row in rows if row.method != "coop"))
    lines = [[method, *map(difference(method), sets)] for method in methods]
    return _table(["method", *sets], lines)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    typer.run(main)
