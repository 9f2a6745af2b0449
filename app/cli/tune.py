"""`shotline tune`: a folder of labelled photographs in, a tuned model out. No service is needed."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

import typer
from rich.progress import Progress, TaskID

from app.cli.console import PHASES, err, out, plain, progress_bar
from app.cli.options import (
    AlarmCostOption,
    AlarmsOption,
    AlphaOption,
    BackboneOption,
    DeviceOption,
    JsonOption,
    MissCostOption,
    MissedOption,
    OnlineOption,
    PrecisionOption,
    ReviewOption,
    check_distinct,
    check_output,
    load,
    read_policy,
    read_recipe,
    read_settings,
    read_view,
    split_pairs,
)
from models.errors import BadDataset, BadInput

if TYPE_CHECKING:
    from models.artifact import Artifact
    from models.backbone import Backbone
    from models.checkpoint import Checkpoint
    from models.classes import ClassSpec
    from models.dataset import Dataset, LabelledImage
    from models.features import FeatureStore
    from models.imaging import View
    from models.recipe import Recipe
    from models.search.budget import SearchBudget
    from models.search.result import SearchResult, TrialRecord
    from models.tuning import TuningProgress

_CHECKPOINT_SECONDS = 5.0
_MAX_SEED = 2**63 - 1  # the API's limit too, since the database keeps it as a signed integer


def tune(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of photographs per class.")],
    out_file: Annotated[Path, typer.Option("--out", help="Where to write the tuned model.")],
    shots: Annotated[
        int | None,
        typer.Option(min=1, help="Tune on so many images of each class; test on all others."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=_MAX_SEED, help="Of the draw, the prompts and the folds.")
    ] = 1,
    ok: Annotated[
        list[str] | None, typer.Option(help="A class of good parts, beside ok, good, normal …")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="CLASS=TEXT: what the text encoder reads for a class.")
    ] = None,
    groups: Annotated[
        Path | None, typer.Option(help="A line per image: path, tab, part. Keeps parts together.")
    ] = None,
    roi: Annotated[
        str | None, typer.Option(help="Region of interest: left,top,right,bottom as fractions.")
    ] = None,
    resize: Annotated[
        Literal["fit", "crop", "stretch"], typer.Option(help="How an image becomes square.")
    ] = "fit",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE: a hyperparameter.")
    ] = None,
    search: Annotated[
        float | None,
        typer.Option(help="Search for a recipe for so many minutes first; what is --set stays."),
    ] = None,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    features: Annotated[
        Path | None, typer.Option(help="The feature store [default: the user's cache folder].")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Go on from here if it exists, and save here on the way.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report as an HTML page.")] = None,
    language: Annotated[
        Literal["en", "ja"], typer.Option(help="Of the report: English or Japanese.")
    ] = "en",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    alpha: AlphaOption = None,
    missed_ng: MissedOption = None,
    false_alarms: AlarmsOption = None,
    miss: MissCostOption = None,
    alarm: AlarmCostOption = None,
    review: ReviewOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tune prompts on a folder of labelled photographs; print the accuracy on what was not used."""
    check_distinct({"--out": out_file, "--report": report, "--checkpoint": checkpoint})
    check_output(out_file, force=force)
    if report is not None:
        check_output(report, force=force)
    if checkpoint is not None:
        check_output(checkpoint, force=True)
    start = _load_checkpoint(checkpoint)
    budget = _budget(search, settings or [], checkpoint)
    recipe, view = read_recipe(settings or []), read_view(roi, resize)
    policy = read_policy(alpha, missed_ng, false_alarms, miss, alarm, review)
    images = read_labelled(folder, ok or [], prompt or [], groups)

    from models.artifact import write_artifact
    from models.dataset import check_images
    from models.features import FolderFeatureStore
    from models.tuning import Tuning

    labelled = _split(images, shots, seed)
    check_images(images.classes, labelled)
    with err.status("Loading the backbone …"):
        loaded = load(backbone, device, precision, online=online)
    store, found = FolderFeatureStore(features or default_store()), None
    if budget is not None:
        looked_at = _Images(images.classes, labelled, view, store)
        recipe, found = _search(looked_at, loaded, budget, seed)
    with progress_bar() as bar:
        tuning = Tuning(
            images.classes,
            labelled,
            loaded,
            recipe,
            seed=seed,
            view=view,
            store=store,
            observer=_Observer(bar, checkpoint),
            checkpoint=start,
        )
        tuning.measure_by(policy)
        artifact = tuning.run().with_metrics(search=found)
    write_artifact(artifact, out_file)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    if report is not None:
        drawn = {"--shots": shots, "--groups": groups}
        options = [str(part) for pair in drawn.items() if pair[1] is not None for part in pair]
        with err.status("Drawing the report …"):
            _write_report(artifact, report, options, labelled, loaded, language)
    _print(artifact, out_file, report, as_json=as_json)


class _Images(NamedTuple):
    """What a search looks at, and where its features are kept."""

    classes: "list[ClassSpec]"
    labelled: "list[LabelledImage]"
    view: "View"
    store: "FeatureStore"


def _budget(
    minutes: float | None, settings: list[str], checkpoint: Path | None
) -> "SearchBudget | None":
    if minutes is None:
        return None
    if checkpoint is not None:
        raise BadInput(
            "--search and --checkpoint are given together; a search would not find the same recipe"
            " again.",
            fix="Search first, then tune with --set and what it found, with a checkpoint.",
            field="checkpoint",
        )
    from models.search.budget import SearchBudget

    return SearchBudget.read({"minutes": minutes, "fixed": read_settings(settings)})


def _search(
    images: _Images, backbone: "Backbone", budget: "SearchBudget", seed: int
) -> "tuple[Recipe, SearchResult]":
    """Try recipes on the training images, behind a bar of the seconds spent."""
    from models.search.budget import check_searchable
    from models.search.data import training_data
    from models.search.local import LocalSearch
    from models.search.trial import Trials

    classes, labelled, view, store = images
    check_searchable(classes, labelled)
    with progress_bar() as bar:
        encoding = bar.add_task(PHASES["features"], total=None, note="")
        data = training_data(
            classes,
            labelled,
            backbone,
            view,
            store,
            progress=lambda done, total: bar.update(encoding, completed=done, total=total),
        )
        task = bar.add_task(PHASES["search"], total=round(60 * budget.minutes), note="")

        def report(trials: "Sequence[TrialRecord]", seconds: float) -> None:
            best = max(trial.macro for trial in trials if trial.macro is not None)
            note = f"{len(trials)} tried, best {100 * best:.1f} %"
            bar.update(task, completed=int(seconds), note=note)

        return LocalSearch(Trials(backbone, data, seed), data, budget, seed, report).run()


def read_labelled(folder: Path, ok: list[str], prompt: list[str], groups: Path | None) -> "Dataset":
    """Read a folder of classes behind a progress bar; see `models.dataset.read_folder`."""
    from models.dataset import read_folder, read_groups

    prompts = dict(split_pairs(prompt, BadDataset, '--prompt "pit=a small pit in steel"'))
    members = read_groups(groups) if groups else None
    with progress_bar() as bar:
        task = bar.add_task("Reading images", total=None, note="")
        return read_folder(
            folder,
            ok_names=ok,
            prompt_names=prompts,
            groups=members,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _split(dataset: "Dataset", shots: int | None, seed: int) -> "list[LabelledImage]":
    """Without `shots` every image is for training; else those that are not drawn are held out."""
    from models.evaluation.splits import draw_shots

    if shots is None:
        return dataset.images
    labels = [image.label for image in dataset.images]
    groups = [image.group for image in dataset.images]
    drawn, left = draw_shots(labels, groups, shots, seed)
    return dataset.subset(drawn, "train") + dataset.subset(left, "holdout")


def default_store() -> Path:
    """Return the feature store of the user who runs a command."""
    from platformdirs import user_cache_path

    return user_cache_path("shotline") / "features"


def _load_checkpoint(path: Path | None) -> "Checkpoint | None":
    if path is None or not path.exists():
        return None
    from models.checkpoint import read_checkpoint

    return read_checkpoint(path)


class _Observer:
    """Shows progress bars and saves checkpoints."""

    def __init__(self, bar: Progress, checkpoint: Path | None) -> None:
        self._bar, self._checkpoint = bar, checkpoint
        self._tasks: dict[str, TaskID] = {}
        self._saved = time.monotonic()

    def on_progress(self, progress: "TuningProgress") -> None:
        """Move the bar of the phase."""
        if progress.phase not in self._tasks:
            self._tasks[progress.phase] = self._bar.add_task(PHASES[progress.phase], note="")
        note = "" if progress.record is None else f"loss {progress.record.loss:.3f}"
        task = self._tasks[progress.phase]
        self._bar.update(task, completed=progress.done, total=progress.total, note=note)

    def on_checkpoint(self, checkpoint: "Checkpoint") -> None:
        """Save it every few seconds."""
        from models.files import write_atomic

        if self._checkpoint and time.monotonic() - self._saved >= _CHECKPOINT_SECONDS:
            write_atomic(self._checkpoint, checkpoint.to_bytes())
            self._saved = time.monotonic()


def _write_report(
    artifact: "Artifact",
    path: Path,
    options: list[str],
    images: "list[LabelledImage]",
    backbone: "Backbone",
    language: Literal["en", "ja"],
) -> None:
    from models.files import write_atomic
    from models.report import ReportData, render_report
    from models.report.pictures import draw_mistakes
    from models.report.reproduction import command
    from models.threads import fixed_threads

    with fixed_threads(artifact.header.recipe.threads):
        mistakes = draw_mistakes(artifact, images, backbone)
    again = command(artifact.header, options)
    data = ReportData.from_artifact(artifact, mistakes=mistakes, command=again)
    write_atomic(path, render_report(data, language).encode())


def _print(artifact: "Artifact", path: Path, report: Path | None, *, as_json: bool) -> None:
    from app.cli.tables import (
        collapse_table,
        curve_table,
        evaluation_table,
        seconds_table,
        trust_table,
    )
    from app.cli.warnings import print_warnings, warnings_of

    header, metrics = artifact.header, artifact.header.metrics
    if as_json:
        summary = {
            "artifact": str(path),
            "digest": artifact.digest,
            "warnings": warnings_of(artifact.header),
        }
        data = summary | {"metrics": metrics.model_dump(mode="json")}
        out.print_json(data=data, ensure_ascii=True)  # a path can hold what UTF-8 cannot
        return
    out.print(evaluation_table(header.classes, metrics.tuned, metrics.zero_shot))
    out.print(collapse_table(metrics.collapse_before, metrics.collapse_after, len(header.classes)))
    if metrics.trust is not None:
        out.print(trust_table(metrics.trust))
    if metrics.learning_curve is not None:
        out.print(curve_table(metrics.learning_curve))
    if metrics.search is not None and metrics.search.choice is not None:
        out.print(plain(f"Recipe  {metrics.search.choice.reason}"), soft_wrap=True)
    out.print(seconds_table(metrics.seconds))
    print_warnings(warnings_of(header))
    places = {"Model": path, "Digest": artifact.digest, "Report": report}
    for name, place in places.items():
        if place is not None:
            out.print(plain(f"{name:<8}{place}"), soft_wrap=True)
