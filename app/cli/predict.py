"""`shotline predict`: a tuned model and photographs in, decisions out. No service is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.console import err, fail, out, plain
from app.cli.options import (
    BackboneOption,
    DeviceOption,
    JsonOption,
    OnlineOption,
    PrecisionOption,
    load,
)
from models.errors import BadImage, BadInput

if TYPE_CHECKING:
    from models.decision import Decision
    from models.predictor import Predictor

_COLOURS = {"ok": "green", "ng": "red", "undecidable": "yellow"}


def predict(
    model: Annotated[Path, typer.Argument(help="A file that `shotline tune` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    top_k: Annotated[
        int | None, typer.Option(min=1, help="How many classes --json lists for an image.")
    ] = None,
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decide on photographs. A bad one is named and the others are decided; the exit code is 2."""
    from models.artifact import read_artifact
    from models.predictor import Predictor

    artifact, photographs = read_artifact(model), list(_expand(images))
    with err.status("Loading the backbone …"):
        loaded = load(backbone or artifact.header.backbone, device, precision, online=online)
    predictor = Predictor(artifact, loaded)
    results = list(_decide(predictor, photographs, top_k))
    decided = [(path, answer) for path, answer in results if not isinstance(answer, BadImage)]
    if as_json:
        rows = [{"image": str(path)} | answer.model_dump() for path, answer in decided]
        out.print_json(data=rows, ensure_ascii=True)  # a path can hold what UTF-8 cannot
    else:
        out.print(_table(decided))
    failed = [answer for _, answer in results if isinstance(answer, BadImage)]
    for error in failed:
        fail(error)
    if failed:
        raise typer.Exit(2)


def _decide(
    predictor: "Predictor", images: list[Path], top_k: int | None
) -> "Iterator[tuple[Path, Decision | BadImage]]":
    for path in images:
        try:
            yield path, predictor.predict([path.read_bytes()], top_k=top_k)[0]
        except OSError as error:
            yield path, BadImage(f"{path} cannot be read: {error}.", fix="Check the path.")
        except BadImage as error:
            yield path, BadImage(f"{path}: {error.problem}", fix=error.fix)


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


def _table(decided: "list[tuple[Path, Decision]]") -> Table:
    table = Table()
    table.add_column("Image", overflow="fold")
    table.add_column("Decision")
    table.add_column("Class", overflow="fold")
    table.add_column("Probability")
    for path, answer in decided:
        colour = _COLOURS[answer.decision]
        table.add_row(
            plain(path),
            Text(answer.decision, colour),
            Text(answer.label),
            f"{answer.probability:.3f}",
        )
    return table
