"""What a line runs on, from a terminal: promote, roll back, freeze, and what to look at."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.console import err, out, plain, progress_bar
from app.cli.options import CaFileOption
from app.cli.warnings import print_warnings
from models.errors import BadInput

if TYPE_CHECKING:
    from app.cli.api import Json

ProjectArgument = Annotated[str, typer.Argument(help="Name or id of the project.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why; kept with the record.")]
UrlOption = Annotated[str, typer.Option(envvar="SHOTLINE_URL", help="Where the gateway is.")]
KeyOption = Annotated[str | None, typer.Option(envvar="SHOTLINE_KEY", help="An API key.")]

_URL = "http://127.0.0.1:8000"


def promote(
    project: ProjectArgument,
    version: Annotated[int, typer.Argument(min=1, help="Number of the version.")],
    reason: ReasonOption = None,
    override: Annotated[
        str | None, typer.Option(help="Of an admin: why, although its gates say no; kept.")
    ] = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Put a version into production, once its gates have been run; wait for them."""
    from app.cli.api import Api
    from app.cli.push import GatesBar

    with Api(url, key, ca_file) as api, progress_bar() as bar:
        alias = api.promote(
            api.project_id(project),
            version,
            reason=reason,
            override=override,
            progress=GatesBar(bar),
        )
        promoted = api.call_again("GET", f"/v1/models/{alias['model']}").json()
    print_warnings(promoted["warnings"])
    out.print(f"Version {version} answers as production.", highlight=False)


def rollback(
    project: ProjectArgument,
    reason: ReasonOption = None,
    url: UrlOption = _URL,
    key: KeyOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Let production be what it was before, at once; again goes back further."""
    from app.cli.api import Api

    with Api(url, key, ca_file) as api:
        back = api.rollback(api.project_id(project), reason=reason)
    out.print(f"Version {back} answers as production.", highlight=False)


def freeze(
    project: ProjectArgument,
    reason: ReasonOption = None,
    lift: Annotated[bool, typer.Option("--lift", help="Let changes be made again; admin.")] = False,
    url: UrlOption = _URL,
    key: KeyOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Stop all changes of a project; predictions, feedback and rollbacks go on."""
    from app.cli.api import Api

    if lift == (reason is not None):
        raise BadInput(
            "Either a reason is given or --lift.",
            fix='Write --reason "customer audit", or --lift without a reason.',
            field="reason",
        )
    with Api(url, key, ca_file) as api:
        address = f"/v1/projects/{api.project_id(project)}/freeze"
        if lift:
            api.call("DELETE", address)
            out.print("Changes can be made again.")
            return
        made = api.call("PUT", address, json={"reason": reason}).json()
    shown = f"All changes are stopped since {made['at'][:16]} by {made['name']}: {made['reason']}"
    out.print(plain(shown), soft_wrap=True)


def review(
    project: ProjectArgument,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many to list.")] = 20,
    url: UrlOption = _URL,
    key: KeyOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """List the predictions that somebody should look at, most informative first."""
    from app.cli.api import Api

    with Api(url, key, ca_file) as api:
        address = f"/v1/projects/{api.project_id(project)}/review"
        queue = api.call("GET", address, params={"limit": limit}).json()
    table = Table("Prediction", "Score", "Why", "Said", "Candidate", "True", "Part")
    for entry in queue["items"]:
        table.add_row(*(plain(text) for text in _row(entry)))
    out.print(table)
    err.print(f"{queue['waiting']} wait; {queue['gathered']} are gathered for the next tuning.")


def _row(entry: "Json") -> list[str]:
    said = f"{entry['decision']} {entry['label']} {entry['probability']:.2f}"
    others = [entry[name] or "" for name in ("candidate_label", "feedback", "part_id")]
    why = ", ".join(entry["reasons"])
    return [entry["prediction_id"], f"{entry['score']:.2f}", why, said, *others]
