"""`shotline report`: what a PoC meeting needs on one page, of a model file or from a gateway."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.console import err, out, plain
from app.cli.options import (
    BackboneOption,
    CaFileOption,
    DeviceOption,
    JsonOption,
    OnlineOption,
    PrecisionOption,
    check_output,
    load,
)
from models.errors import BadInput

if TYPE_CHECKING:
    from models.artifact import Artifact
    from models.backbone import Backbone
    from models.report import LanguageCode, Mistake

_HERE = "http://127.0.0.1:8000"


def report(
    model: Annotated[
        Path | None, typer.Argument(help="A file that `shotline tune` wrote; none with --project.")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write the page [default: the screen].")
    ] = None,
    language: Annotated[Literal["en", "ja"], typer.Option(help="English or Japanese.")] = "en",
    images: Annotated[
        Path | None,
        typer.Option(help="The folder of photographs: the mistakes are drawn, with heat maps."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the page is called.")] = None,
    project: Annotated[
        str | None, typer.Option(help="Ask a gateway: of this project, a name or id.")
    ] = None,
    version: Annotated[
        int | None,
        typer.Option(min=1, help="Of the project's versions [default: the one in production]."),
    ] = None,
    url: Annotated[str, typer.Option(envvar="SHOTLINE_URL", help="Where the gateway is.")] = _HERE,
    key: Annotated[
        str | None, typer.Option(envvar="SHOTLINE_KEY", help="An API key of a viewer.")
    ] = None,
    ca_file: CaFileOption = None,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a tuned model: a page that needs nothing beside itself, or JSON."""
    _check_source(model, project, images)
    if out_file is not None:
        check_output(out_file, force=force)
    if model is None:
        text = _of_gateway(str(project), version, language, (url, key, ca_file), as_json=as_json)
    else:
        from models.artifact import read_artifact

        artifact = read_artifact(model)
        mistakes: list[Mistake] = []
        if images is not None:
            with err.status("Loading the backbone …"):
                source = backbone or artifact.header.backbone
                loaded = load(source, device, precision, online=online)
            mistakes = _drawn(artifact, images, loaded)
        text = _rendered(artifact, mistakes, title, language, as_json=as_json)
    _write(text, out_file)


def _check_source(model: Path | None, project: str | None, images: Path | None) -> None:
    if (model is None) == (project is None):
        raise BadInput(
            "Neither a model file nor a project is named."
            if model is None
            else f"Both the model file {model} and the project {project!r} are named.",
            fix="Write `shotline report MODEL`, or `shotline report --project NAME`.",
            field="model",
        )
    if images is not None and project is not None:
        raise BadInput(
            "--images is for a model file; a gateway has the photographs itself.",
            fix="Leave --images out.",
            field="images",
        )


def _drawn(artifact: "Artifact", folder: Path, backbone: "Backbone") -> "list[Mistake]":
    """Draw the mistakes whose photographs are in the folder, found by their bytes."""
    from models.dataset import LabelledImage
    from models.files import file_sha256
    from models.litter import is_litter
    from models.report.pictures import draw_mistakes

    if not folder.is_dir():
        raise BadInput(
            f"{folder} is not a folder.", fix="Name the folder of photographs.", field="images"
        )
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    with err.status(f"Looking for the mistakes among {len(paths)} files …"):
        found = [
            LabelledImage(sha256, 0, sha256, "train", path.read_bytes, path.name)
            for path in paths
            if not is_litter(path.name)
            for sha256 in [file_sha256(path)]
        ]
    with err.status("Drawing the heat maps …"):
        return draw_mistakes(artifact, found, backbone)


def _rendered(
    artifact: "Artifact",
    mistakes: "list[Mistake]",
    title: str | None,
    language: "LanguageCode",
    *,
    as_json: bool,
) -> str:
    from models.report import ReportData, render_report
    from models.report.document import report_document

    data: ReportData = ReportData.from_artifact(artifact, mistakes=mistakes, title=title)
    if as_json:
        return _pretty(json.loads(report_document(data, language).model_dump_json()))
    return render_report(data, language)


def _of_gateway(
    project: str,
    version: int | None,
    language: str,
    gateway: tuple[str, str | None, Path | None],
    *,
    as_json: bool,
) -> str:
    from app.cli.api import Api

    with Api(*gateway) as api:
        model = _version_id(api, api.project_id(project), version, project)
        params = {"language": language, "format": "json" if as_json else "html"}
        answer = api.call_again("GET", f"/v1/models/{model}/report", params=params)
        return _pretty(answer.json()) if as_json else answer.content.decode()


def _version_id(api: Any, identifier: str, version: int | None, project: str) -> str:
    """Return the id of the project's version of that number, or of the one in production."""
    if version is None:
        aliases = api.call_again("GET", f"/v1/projects/{identifier}/aliases").json()
        for alias in aliases:
            if alias["alias"] == "production":
                return str(alias["model"])
        raise BadInput(
            f"The project {project!r} has no version in production.",
            fix="Name one with --version.",
            field="version",
        )
    cursor = None
    while True:
        params = {"limit": 100} | ({} if cursor is None else {"cursor": cursor})
        page = api.call_again("GET", f"/v1/projects/{identifier}/models", params=params).json()
        for model in page["items"]:
            if model["version"] == version:
                return str(model["id"])
        cursor = page["next_cursor"]
        if cursor is None:
            raise BadInput(
                f"The project {project!r} has no version {version}.",
                fix="List its versions: GET /v1/projects/{project}/models.",
                field="version",
            )


def _pretty(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _write(text: str, path: Path | None) -> None:
    if path is None:
        typer.echo(text)
        return
    from models.files import write_atomic

    write_atomic(path, text.encode())
    out.print(plain(f"Report  {path}"), soft_wrap=True)
