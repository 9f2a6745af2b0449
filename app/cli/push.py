"""`shotline push`: a folder of labelled photographs to a tuned version, through the service."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, TaskID
from rich.table import Table

from app.cli.console import PHASES, err, out, progress_bar
from app.cli.options import CaFileOption, read_settings
from app.cli.warnings import print_warnings
from models.errors import BadDataset
from models.litter import is_litter

if TYPE_CHECKING:
    from app.cli.api import Api, Json


def push(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of photographs per class.")],
    project: Annotated[str, typer.Option(help="The project's name; made where there is none.")],
    promote: Annotated[bool, typer.Option("--promote", help="Let the version answer.")] = False,
    ok: Annotated[
        list[str] | None, typer.Option(help="A class of good parts, beside ok, good, normal …")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the tuning.")] = 1,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: a hyperparameter.")
    ] = None,
    url: Annotated[
        str, typer.Option(envvar="SHOTLINE_URL", help="Where the gateway is.")
    ] = "http://127.0.0.1:8000",
    key: Annotated[
        str | None, typer.Option(envvar="SHOTLINE_KEY", help="An API key of an engineer.")
    ] = None,
    ca_file: CaFileOption = None,
) -> None:
    """Upload a folder per class, tune, wait, print the result."""
    from app.cli.api import Api

    files = labelled_files(folder)
    _refuse_unknown_ok(ok or [], files)
    with Api(url, key, ca_file) as api:
        found = api.project(project)
        with progress_bar() as bar:
            verdicts = upload(api, bar, found["id"], files, ok=ok or [])
            _say_rejected(verdicts)
            tuning = api.tune(
                found["id"],
                recipe=read_settings(settings or []),
                seed=seed,
                progress=TuningBar(bar),
            )
        model = api.call_again("GET", f"/v1/models/{tuning['model']['id']}").json()
        if promote:
            with progress_bar() as bar:
                api.promote(found["id"], model["version"], progress=GatesBar(bar))
    _print(project, model, promoted=promote)


def labelled_files(folder: Path) -> list[tuple[str, Path]]:
    """List the class and path of each file in a folder of class folders.

    Hidden files and file managers' litter are passed over.

    Raises:
        BadDataset: no folder, no files in any sub-folder, or a folder inside a sub-folder.
    """
    paths = [
        path
        for path in sorted(folder.glob("*/*"))
        if not is_litter(path.name) and not is_litter(path.parent.name)
    ]
    if nested := next((path for path in paths if path.is_dir()), None):
        raise BadDataset(
            f"{nested} is a folder inside the folder of a class; its photographs would be missed.",
            fix="Move them into the class's own folder, or the folder out of it.",
            field="folder",
        )
    if not paths:
        raise BadDataset(
            f"{folder} has no sub-folders with photographs in them.",
            fix="Make one sub-folder per class, named after it, and put its photographs inside.",
            field="folder",
        )
    return [(path.parent.name, path) for path in paths]


def _refuse_unknown_ok(names: list[str], files: list[tuple[str, Path]]) -> None:
    from models.classes import normalise_name

    classes = {label for label, _ in files}
    known = {normalise_name(label) for label in classes}
    for name in names:
        if normalise_name(name) not in known:
            raise BadDataset(
                f"The ok class {name!r} belongs to no class folder.",
                fix=f"The folders are: {', '.join(sorted(classes))}.",
                field="ok",
            )


def upload(
    api: "Api",
    bar: Progress,
    project: str,
    files: list[tuple[str, Path]],
    *,
    ok: list[str],
) -> "list[Json]":
    """Upload photographs behind a progress bar; return the verdict on each."""
    task = bar.add_task("Uploading", total=len(files), note="")
    return list(
        api.upload(
            project,
            files,
            ok=ok,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    )


class TuningBar:
    """A bar for each phase of a tuning, moved by what the gateway says of it."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {"queued": bar.add_task("In the queue", total=1, note="")}

    def __call__(self, tuning: "Json") -> None:
        """Move the bars to where `tuning` is."""
        if tuning["state"] != "queued":
            self._bar.update(self._tasks["queued"], completed=1)
        if progress := tuning["progress"]:
            phase = progress["phase"]
            if phase not in self._tasks:
                self._tasks[phase] = self._bar.add_task(PHASES[phase], note="")
            loss = progress["loss"]
            note = "" if loss is None else f"loss {loss:.3f}"
            done, total = progress["done"], progress["total"]
            self._bar.update(self._tasks[phase], completed=done, total=total, note=note)


class GatesBar:
    """A bar for the gates of a version, moved by what the gateway says of them."""

    def __init__(self, bar: Progress) -> None:
        self._bar, self._task = bar, bar.add_task("Gates", total=None, note="")

    def __call__(self, gates: "Json") -> None:
        """Move the bar to where `gates` are."""
        progress = gates["progress"]
        if progress and progress["phase"] == "evaluate":
            done, total = progress["done"], progress["total"]
            self._bar.update(self._task, completed=done, total=total, note="")
        if verdict := gates["verdict"]:
            self._bar.update(self._task, completed=1, total=1, note=verdict)


def _say_rejected(verdicts: "list[Json]") -> None:
    for verdict in verdicts:
        if verdict["verdict"] == "rejected":
            name, why = verdict["file"], f"{verdict['detail']} {verdict['fix'] or ''}"
            err.print(f"[yellow]Left out[/] {escape(name)}: {escape(why)}", soft_wrap=True)


def _print(project: str, model: "Json", *, promoted: bool) -> None:
    accuracy = model["accuracy"]
    table = Table("", "Macro accuracy", "95 % interval", title=f"{escape(project)}")
    for name, part in (("tuned", "macro"), ("zero-shot", "zero_shot_macro")):
        share = accuracy[part]
        interval = f"{share['low']:.3f} to {share['high']:.3f}"
        table.add_row(name, f"{share['value']:.3f}", interval)
    out.print(table)
    out.print(f"Measured {accuracy['basis']} on {accuracy['images']} images.", highlight=False)
    print_warnings(model["warnings"])
    state = "answers as production" if promoted else "waits for `--promote`"
    out.print(f"Version {model['version']} {state}. \n{model['digest']}", highlight=False)
