"""`shotline predict`: photographs in, decisions out, by a model file or by a running gateway."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.console import err, fail, out, progress_bar
from app.cli.options import (
    AlarmCostOption,
    AlarmsOption,
    AlphaOption,
    BackboneOption,
    CaFileOption,
    DeviceOption,
    JsonOption,
    MissCostOption,
    MissedOption,
    OnlineOption,
    PrecisionOption,
    ReviewOption,
    check_output,
    load,
    read_policy,
)
from models.errors import BadImage, BadInput, ShotlineError

if TYPE_CHECKING:
    from app.cli.decisions import Decided
    from models.artifact import Artifact
    from models.predictor import Predictor
    from models.trust.policy import DecisionPolicy

_HERE = "http://127.0.0.1:8000"
_MODEL = ".safetensors"


def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="[MODEL] IMAGE",
            help="A file that `shotline tune` wrote, none with --project; then photographs, or"
            " folders of them.",
        ),
    ],
    project: Annotated[
        str | None,
        typer.Option(help="Ask a gateway: by what this project, a name or id, has in production."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help=f"Where the gateway is, by default SHOTLINE_URL or {_HERE}."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(envvar="SHOTLINE_KEY", help="An API key of an operator.")
    ] = None,
    ca_file: CaFileOption = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many classes --json lists for an image.")
    ] = None,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    alpha: AlphaOption = None,
    missed_ng: MissedOption = None,
    false_alarms: AlarmsOption = None,
    miss: MissCostOption = None,
    alarm: AlarmCostOption = None,
    review: ReviewOption = None,
    as_json: JsonOption = False,
    csv: Annotated[
        Path | None, typer.Option(help="Write a line for each image to this file, too.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --csv.")] = False,
) -> None:
    """Decide on photographs. A bad one is named and the others are decided; the exit code is 2."""
    if csv is not None:
        check_output(csv, force=force)
    asked = alpha, missed_ng, false_alarms, miss, alarm, review
    if project is None and url is None:
        model, images = _model_and_images(paths)
        policy = read_policy(*asked)
        results = _by_file(model, images, top_k, policy, backbone, device, precision, online)
        ended = None
    else:
        computing = backbone is not None, device != "auto", precision != "auto", online
        _refuse_options(dict(zip(_COMPUTING, computing, strict=True)))
        _refuse_policy(
            dict(zip(_ASKING, (value is not None and value != [] for value in asked), strict=True))
        )
        results, ended = _by_gateway(paths, project, url, key, ca_file, top_k)
    _report(results, ended, as_json=as_json, csv=csv)


_COMPUTING = ("--backbone", "--device", "--precision", "--online")
_ASKING = ("--alpha", "--missed-ng", "--false-alarms", "--miss", "--alarm", "--review")


def _model_and_images(paths: list[Path]) -> tuple[Path, list[Path]]:
    model, *images = paths
    if model.is_dir() or not images:
        raise BadInput(
            f"{model} is a folder; without --project a model file comes first."
            if model.is_dir()
            else f"Only {model} is named; a model file and photographs are expected.",
            fix="Write `shotline predict MODEL IMAGE...`, or name a gateway's --project.",
            field="model",
        )
    return model, list(_expand(images))


def _refuse_options(given: dict[str, bool]) -> None:
    for option, is_given in given.items():
        if is_given:
            raise BadInput(
                f"{option} is for a model file; with --project the gateway computes.",
                fix=f"Leave {option} out.",
                field=option.removeprefix("--"),
            )


def _refuse_policy(given: dict[str, bool]) -> None:
    for option, is_given in given.items():
        if is_given:
            raise BadInput(
                f"{option} is for a model file; with --project the project says what it asks.",
                fix=f"Leave {option} out, or change the project's decisions.",
                field=option.removeprefix("--"),
            )


def _by_file(
    model: Path,
    images: list[Path],
    top_k: int | None,
    policy: "DecisionPolicy",
    backbone: str | None,
    device: DeviceOption,
    precision: PrecisionOption,
    online: OnlineOption,
) -> "list[Decided]":
    from models.artifact import read_artifact
    from models.predictor import Predictor
    from models.trust.policy import check_names

    artifact = read_artifact(model)
    check_names(policy, [spec.name for spec in artifact.header.classes])
    _check_budget(artifact, policy)
    with err.status("Loading the backbone …"):
        loaded = load(backbone or artifact.header.backbone, device, precision, online=online)
    predictor = Predictor(artifact, loaded)
    with progress_bar() as bar:
        task = bar.add_task("Deciding", total=len(images), note="")
        results = []
        for path in images:
            results.append(_decide(predictor, path, top_k, policy))
            bar.advance(task)
    return results


def _check_budget(artifact: "Artifact", policy: "DecisionPolicy") -> None:
    """Refuse a budget that the model cannot keep."""
    from models.trust.policy import check_budget

    rule, roles = artifact.header.rule, {spec.role for spec in artifact.header.classes}
    groups = {role: 0 if rule is None else rule.groups(role) for role in roles}
    check_budget(policy.budget, groups, "the model was calibrated on")


def _decide(
    predictor: "Predictor", path: Path, top_k: int | None, policy: "DecisionPolicy"
) -> "Decided":
    from app.cli.decisions import Decided, bad, unreadable

    try:
        answer = predictor.predict([path.read_bytes()], top_k=top_k, policy=policy)[0]
    except OSError as error:
        return unreadable(path, error)
    except BadImage as error:
        return bad(path, error)
    return Decided(path, answer.as_json())


def _by_gateway(
    paths: list[Path],
    project: str | None,
    url: str | None,
    key: str | None,
    ca_file: Path | None,
    top_k: int | None,
) -> "tuple[list[Decided], ShotlineError | None]":
    from app.cli.api import Api
    from app.cli.asking import ask

    if project is None:
        raise BadInput(
            f"The gateway {url} is named, but no project.",
            fix="Say with --project which one's version in production is to decide.",
            field="project",
        )
    for path in paths:
        if path.suffix == _MODEL and not path.is_dir():
            raise BadInput(
                f"{path} is a model file; with --project the version in production decides.",
                fix="Leave the file out, or --project and --url.",
                field="model",
            )
    images = list(_expand(paths))
    here = url or os.environ.get("SHOTLINE_URL") or _HERE
    with Api(here, key, ca_file) as api, progress_bar() as bar:
        api.call("GET", "/livez")  # at once: what is asked later is asked again for minutes
        task = bar.add_task("Deciding", total=len(images), note="")
        return ask(
            api, api.project_id(project), images, top_k=top_k, decided=lambda: bar.advance(task)
        )


def _report(
    results: "list[Decided]", ended: ShotlineError | None, *, as_json: bool, csv: Path | None
) -> None:
    """Print the decisions, then what stands against others; the exit code is 2 where any does."""
    from app.cli import decisions
    from models.files import write_atomic

    if csv is not None:
        write_atomic(csv, decisions.as_csv(results))
    if as_json:
        # A path can hold what UTF-8 cannot.
        out.print_json(data=decisions.as_json(results), ensure_ascii=True)
    elif results or ended is None:
        out.print(decisions.as_table(results))
    failed = decisions.problems(results) + ([] if ended is None else [ended])
    for error in failed:
        fail(error)
    if failed:
        raise typer.Exit(2)


def _expand(paths: list[Path]) -> Iterator[Path]:
    """Replace each folder by the files in it and in its sub-folders, litter left out."""
    from models.litter import is_litter

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not any(map(is_litter, file.relative_to(path).parts))
        ]
        if not files:
            raise BadInput(
                f"The folder {path} holds no photographs.", fix="Check the path.", field="images"
            )
        yield from files
