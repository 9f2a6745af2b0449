"""Options that several commands share, and what is made of them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from models.errors import BadInput, BadRecipe, BadView, ShotlineError, file_errors

if TYPE_CHECKING:
    from models.backbone import Backbone
    from models.imaging import View
    from models.recipe import Recipe
    from models.trust.policy import DecisionPolicy

BackboneOption = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="starter, local-dir:FOLDER, hf-hub:ORG/NAME, ARCHITECTURE/TAG or ARCHITECTURE@FILE.",
    ),
]
DeviceOption = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option("--device", help="Where to compute.")
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option("--precision", help="The image encoder's arithmetic."),
]
OnlineOption = Annotated[
    bool, typer.Option("--online", help="Allow the backbone's weights to be downloaded.")
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar="SHOTLINE_CA_FILE",
        help="PEM file of who vouches for the gateway's certificate, where nobody public does.",
    ),
]
AlphaOption = Annotated[
    float | None,
    typer.Option("--alpha", help="About this share of images may have a set without their class."),
]
MissedOption = Annotated[
    float | None,
    typer.Option("--missed-ng", help="At most this share of bad parts is to be called ok."),
]
AlarmsOption = Annotated[
    float | None,
    typer.Option("--false-alarms", help="At most this share of good parts is to be called ng."),
]
MissCostOption = Annotated[
    list[str] | None, typer.Option("--miss", help="CLASS=COST of calling such a part ok.")
]
AlarmCostOption = Annotated[
    list[str] | None, typer.Option("--alarm", help="CLASS=COST of calling such a part ng.")
]
ReviewOption = Annotated[
    float | None, typer.Option("--review", help="Cost of having a person look, in the same unit.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def load(
    source: str | None,
    device: Literal["auto", "cpu", "cuda"],
    precision: Literal["auto", "fp32", "bf16", "fp16"],
    *,
    online: bool,
) -> "Backbone":
    """Load a backbone, the starter where none is named."""
    from models.backbone_files import STARTER
    from models.backbone_source import load_backbone

    return load_backbone(source or STARTER, device=device, precision=precision, offline=not online)


def read_recipe(settings: Sequence[str]) -> "Recipe":
    """Read `name=value` settings over the default recipe.

    Raises:
        BadRecipe: not of that form, an unknown name, or a value out of range.
    """
    from models.recipe import Recipe

    return Recipe.read(read_settings(settings))


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` settings; a value that is no JSON is a text.

    Raises:
        BadRecipe: not of that form.
    """
    values: dict[str, Any] = {}
    for name, text in split_pairs(settings, BadRecipe, "--set steps=100"):
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def read_policy(
    alpha: float | None,
    missed_ng: float | None,
    false_alarms: float | None,
    miss: Sequence[str] | None,
    alarm: Sequence[str] | None,
    review: float | None,
) -> "DecisionPolicy":
    """Read what is asked of decisions; the default policy where nothing is.

    Raises:
        BadInput: not a number where one is expected, or a value out of range.
    """
    from models.trust.policy import DecisionPolicy

    costs: dict[str, dict[str, str]] = {}
    for field, option, pairs in (("miss", "--miss", miss), ("false_alarm", "--alarm", alarm)):
        for name, text in split_pairs(pairs or (), BadInput, f"{option} scratch=50"):
            costs.setdefault(name, {})[field] = text
    budget = {"missed_ng": missed_ng, "false_alarms": false_alarms}
    given = {"costs": costs, "review": review, "budget": budget}
    return DecisionPolicy.read(given if alpha is None else given | {"alpha": alpha})


def read_view(roi: str | None, resize: Literal["fit", "crop", "stretch"]) -> "View":
    """Read a region of interest such as `0.1,0.1,0.9,0.9`.

    Raises:
        BadView: not four numbers, or not a region within the image.
    """
    from models.imaging import View

    if roi is None:
        return View(resize=resize)
    try:
        left, top, right, bottom = (float(part) for part in roi.split(","))
    except ValueError as error:
        raise BadView(
            f"The region of interest {roi!r} is not four numbers with commas between them.",
            fix="Write left,top,right,bottom as fractions, such as 0.1,0.1,0.9,0.9.",
            field="roi",
        ) from error
    return View(roi=(left, top, right, bottom), resize=resize)


def split_pairs(
    pairs: Sequence[str], error: type[ShotlineError], example: str
) -> list[tuple[str, str]]:
    """Split `name=value` pairs.

    Raises:
        ShotlineError: of the type `error`, for a pair without an equals sign.
    """
    result = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise error(f"{pair!r} is not of the form NAME=VALUE.", fix=f"Write it as {example}.")
        result.append((name, value))
    return result


def check_distinct(files: Mapping[str, Path | None]) -> None:
    """Refuse two options that name one file, of which the last to be written would remain.

    Raises:
        BadInput: two of `files`, which are by the names of their options, are the same.
    """
    first: dict[Path, str] = {}
    for option, path in files.items():
        if path is None:
            continue
        other = first.setdefault(path.resolve(), option)
        if other != option:
            raise BadInput(
                f"{other} and {option} both name {path}.",
                fix="Give each a file of its own.",
                field=option.removeprefix("--"),
            )


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a place that the result could not be written to, before any work is done.

    Raises:
        BadInput: the folder does not exist, or the file does and may not be replaced, or is a
            folder.
        StorageUnusable: the folder cannot be written to.
    """
    if not path.parent.is_dir():
        raise BadInput(
            f"The folder {path.parent} of the output {path.name} does not exist.",
            fix="Create it, or choose another place.",
            field="out",
        )
    if path.is_dir():
        raise BadInput(
            f"The output {path} is a folder; a file is written.",
            fix="Add a file's name to it.",
            field="out",
        )
    if path.exists() and not force:
        raise BadInput(
            f"The file {path} exists.",
            fix="Choose another name, or replace it with --force.",
            field="out",
        )
    # Trying is the only sure test: permissions say nothing of a read-only disk, or to root.
    with file_errors(path, "written"), TemporaryFile(dir=path.parent):
        pass
