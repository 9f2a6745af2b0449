"""`shotline inspect`: what an artifact holds."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from app.cli.console import out, plain
from app.cli.options import JsonOption

if TYPE_CHECKING:
    from models.artifact import Artifact


def inspect(
    model: Annotated[Path, typer.Argument(help="A file that `shotline tune` wrote.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a tuned model is, what it was tuned on, and how good it was found to be."""
    from models.artifact import read_artifact

    artifact = read_artifact(model)
    if as_json:
        header = artifact.header.model_dump(mode="json")
        out.print_json(json.dumps({"digest": artifact.digest} | header))
        return
    from app.cli.tables import evaluation_table, trust_table
    from app.cli.warnings import print_warnings, warnings_of

    metrics = artifact.header.metrics
    out.print(_facts(artifact))
    out.print(_classes(artifact))
    out.print(evaluation_table(artifact.header.classes, metrics.tuned, metrics.zero_shot))
    if metrics.trust is not None:
        out.print(trust_table(metrics.trust))
    print_warnings(warnings_of(artifact.header))


def _facts(artifact: "Artifact") -> Table:
    header = artifact.header
    tensors = ", ".join(
        f"{name} {'x'.join(str(side) for side in tensor.shape)}"
        for name, tensor in artifact.tensors.items()
    )
    table = Table(show_header=False, title="Tuned model")
    for name, value in {
        "digest": artifact.digest,
        "made": f"{header.created:%Y-%m-%d %H:%M} UTC by Shotline {header.shotline}",
        "made on": header.made_on,
        "backbone": f"{header.backbone} ({header.backbone_digest})",
        "snapshot": header.snapshot,
        "seed": str(header.seed),
        "view": header.view.model_dump_json(),
        "recipe": header.recipe.model_dump_json(),
        "tensors": tensors,
    }.items():
        table.add_row(name, plain(value))
    return table


def _classes(artifact: "Artifact") -> Table:
    table = Table("Class", "Read as", "Role", "Tuned on", title="Classes")
    for spec, count in zip(artifact.header.classes, artifact.header.n_train, strict=True):
        table.add_row(Text(spec.name), Text(spec.prompt_name), spec.role, f"{count} images")
    return table
