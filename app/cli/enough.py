"""`shotline enough`: are there enough photographs, and of which class are more wanted."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli.console import err, out, progress_bar
from app.cli.options import (
    BackboneOption,
    DeviceOption,
    JsonOption,
    OnlineOption,
    PrecisionOption,
    load,
    read_view,
)
from app.cli.tune import default_store, read_labelled


def enough(
    folder: Annotated[Path, typer.Argument(help="One sub-folder of photographs per class.")],
    more: Annotated[
        int, typer.Option(min=1, max=1000, help="So many more of a class are asked about.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the sub-samples.")] = 1,
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
    backbone: BackboneOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    online: OnlineOption = False,
    features: Annotated[
        Path | None, typer.Option(help="The feature store [default: the user's cache folder].")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what more photographs of each class would probably bring, without tuning anything."""
    view = read_view(roi, resize)
    images = read_labelled(folder, [], prompt or [], groups)

    from models.baselines.zero_shot import zero_shot
    from models.dataset import check_images
    from models.enough.curve import learning_curve
    from models.features import FolderFeatureStore
    from models.recipe import Recipe
    from models.search.data import training_data

    check_images(images.classes, images.images)
    with err.status("Loading the backbone …"):
        loaded = load(backbone, device, precision, online=online)
    store = FolderFeatureStore(features or default_store())
    with progress_bar() as bar:
        task = bar.add_task("Encoding images", total=None, note="")
        data = training_data(
            images.classes,
            images.images,
            loaded,
            view,
            store,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    written = zero_shot(loaded, data.prompt_names)
    names = [spec.name for spec in images.classes]
    curve = learning_curve(data, written, Recipe(), names, seed=seed, more=more)
    if as_json:
        out.print_json(curve.model_dump_json(), ensure_ascii=True)
        return

    from app.cli.tables import curve_table

    out.print(curve_table(curve))
