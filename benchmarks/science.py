"""The evidence for the default recipe: `python -m benchmarks.science`; about an hour on one core.

Writes five data sets as folders, every image of a set re-encoded alike, and lets `shotline bench`
compare methods on them. What stands in the results is not run again.
"""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from benchmarks.common import RESULTS, data_root, reencode
from examples.demo_images import DemoClass, solar_cells, textile

DATA = Path("build/science")
PROMPTS = Path(__file__).parent / "prompts"
FIGURES = Path("docs/figures")
MAGNETIC = "magnetic_tile"
PACKAGED_PER_CLASS = 250  # of the sets that come from packages, by a seeded draw

ALL_TEXT = "auto,coop,kgcoop,prograd,cpt,baselines"
# Each run, what `shotline bench` is told beside the data: the sets are all five unless said.
RUNS: dict[str, list[str]] = {
    "unbalanced": ["--methods", ALL_TEXT, "--shots", "16", "--tau", "0.06"],
    "unbalanced_ten_seeds": [
        *("--methods", "auto,baselines", "--shots", "16", "--tau", "0.06"),
        *("--seeds", "1,2,3,4,5,6,7,8,9,10"),
    ],
    "base_to_novel": [
        *("--methods", "auto,coop,kgcoop,prograd,cpt,zero-shot,zero-shot-80"),
        *("--protocol", "base-to-novel", "--shots", "16"),
    ],
    "balanced": ["--methods", "auto,coop,kgcoop,baselines", "--shots", "1,4,16"],
    "ablation": ["--ablation", "--shots", "16", "--tau", "0.06"],
}
SETS = {
    "base_to_novel": ["clothing10"],
    "ablation": ["xsdd", "clothing10"],
}


def main(
    runs: Annotated[
        list[str] | None, typer.Argument(help=f"Some of {', '.join(RUNS)}; all where none.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
) -> None:
    """Prepare the data and run the comparisons, each into `benchmarks/results/NAME.json`."""
    folders = prepare()
    for run in runs or RUNS:
        names = SETS.get(run, list(folders))
        command = [
            *("shotline", "bench", *(str(folders[name]) for name in names)),
            *RUNS[run],
            *_details(names),
            *("--jobs", str(jobs)),
            *("--json", str(RESULTS.relative_to(Path.cwd()) / f"bench_{run}.json")),
            *("--plots", str(FIGURES / run)),
        ]
        Console().print(shlex.join(command), soft_wrap=True)
        program = Path(sys.executable).parent / command[0]
        subprocess.run([program, *command[1:]], check=True)  # noqa: S603 - our own command


def prepare() -> dict[str, Path]:
    """Write the sets that are not yet there, and return the folders of all."""
    shared = {name: data_root() / name for name in ("xsdd", MAGNETIC, "clothing10")}
    for name, source in shared.items():
        files = {folder.name: sorted(folder.iterdir()) for folder in sorted(source.iterdir())}
        _write(name, files)
    for name, classes in {"textile": textile(local=True), "elpv": solar_cells()}.items():
        _write(name, {spec.name: _draw(spec) for spec in classes})
    return {name: DATA / name for name in (*shared, "textile", "elpv")}


def _draw(spec: DemoClass) -> list[Path]:
    order = np.random.default_rng(0).permutation(len(spec.files))
    return [spec.files[index] for index in order[:PACKAGED_PER_CLASS]]


def _write(name: str, files: dict[str, list[Path]]) -> None:
    folder = DATA / name
    if folder.exists():
        return
    for label, paths in track(files.items(), f"Writing {name}"):
        (folder / label).mkdir(parents=True)
        for path in paths:
            (folder / label / f"{path.stem}.jpg").write_bytes(reencode(path.read_bytes()))


def _details(names: Sequence[str]) -> list[str]:
    """Return the options of the sets: files of groups, and of the classes' texts."""
    options: list[str] = []
    for name in names:
        groups, prompts = data_root() / f"{name}_groups.tsv", PROMPTS / f"{name}.yaml"
        if groups.is_file():
            options += ["--groups", f"{name}={renamed_groups(groups)}"]
        if prompts.is_file():
            options += ["--prompts", f"{name}={prompts.relative_to(Path.cwd())}"]
    return options


def renamed_groups(groups: Path) -> Path:
    """Write the file of groups for images that are JPEG now."""
    path = DATA / groups.name
    lines = [line.split("\t") for line in groups.read_text(encoding="utf-8").splitlines()]
    renamed = [f"{Path(image).with_suffix('.jpg')}\t{part}\n" for image, part in lines]
    path.write_text("".join(renamed), encoding="utf-8")
    return path


if __name__ == "__main__":
    typer.run(main)
