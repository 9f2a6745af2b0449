"""`shotline quantize`: the image encoder in INT8, and for which versions it may answer."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from app.cli.console import err, out, plain, progress_phases
from app.cli.data_folder import DATA, DataOption, settings_of
from app.cli.options import JsonOption

if TYPE_CHECKING:
    from app.predictions.engines.int8 import Judgement, Verdict

_NOTHING = "\N{EM DASH}"


def quantize(data: DataOption = DATA, as_json: JsonOption = False) -> None:
    """Make the image encoder INT8 and judge it on every project's held-out images.

    A version is accepted where INT8 costs at most 0.5 points of macro accuracy there. The gateway
    uses what was accepted with SHOTLINE_BACKBONE_INT8=on, from its next start. The exit code is 0
    where nothing is accepted, too: that is a result.
    """
    from app.core.database import Database
    from app.core.logging import configure_logging
    from app.predictions.quantizing import quantize_and_judge

    settings = settings_of(data)
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    database = Database.of(settings)
    try:
        with progress_phases() as phases:
            verdict = quantize_and_judge(settings, database, phases)
    finally:
        database.close()
    if as_json:
        out.print_json(data=_as_json(verdict))
    else:
        _print(verdict)
    _say(verdict, settings.int8_folder)


def _as_json(verdict: "Verdict") -> dict[str, Any]:
    accepted = verdict.accepted()
    return {
        **verdict.model_dump(mode="json", exclude={"judgements", "files"}),
        "faster": verdict.faster,
        "versions": [
            {
                **one.model_dump(mode="json"),
                "cost": one.cost,
                "accepted": one.digest in accepted,
                "against": one.against,
            }
            for one in verdict.judgements
        ],
    }


def _print(verdict: "Verdict") -> None:
    images, projects = verdict.calibration["images"], verdict.calibration["projects"]
    table = Table(
        title="INT8 on held-out images",
        caption=f"calibrated on {images} training images of {projects} projects",
    )
    table.add_column("Project", overflow="fold")
    table.add_column("Version", justify="right")
    for heading in ("Images", "fp32, %", "INT8, %", "Cost, points", "Other labels"):
        table.add_column(heading, justify="right")
    table.add_column("Accepted", overflow="fold")
    for one in verdict.judgements:
        table.add_row(plain(one.project), str(one.version), *_measured(one), _accepted(one))
    out.print(table)
    speeds = Table("Encoder", *(f"images/s, {size} a batch" for size in (1, 16)), title="Speed")
    for name, by_size in verdict.images_per_second.items():
        label = f"INT8 by {verdict.engine}" if name == "int8" else name
        speeds.add_row(label, *(f"{by_size[size]:.1f}" for size in (1, 16)))
    out.print(speeds)


def _measured(one: "Judgement") -> list[str]:
    if one.cost is None:
        return [str(one.images), *[_NOTHING] * 4]
    cost = round(one.cost, 2) + 0.0
    return [
        str(one.images), f"{one.fp32:.2f}", f"{one.int8:.2f}", f"{cost:+.2f}", str(one.changed),
    ]  # fmt: skip


def _accepted(one: "Judgement") -> Text:
    return Text("yes") if one.against is None else plain(f"no: {one.against}")


def _say(verdict: "Verdict", folder: Path) -> None:
    accepted = len(verdict.accepted())
    if not verdict.faster:
        err.print("INT8 is not faster than fp32 on this machine: it is not used for any version.")
    elif not accepted:
        err.print("No version is accepted: all are answered in fp32.")
    else:
        err.print(
            plain(
                f"Accepted for {accepted} of {len(verdict.judgements)} versions; kept in {folder}."
                " Start the gateway with SHOTLINE_BACKBONE_INT8=on to use it."
            ),
            soft_wrap=True,
        )
