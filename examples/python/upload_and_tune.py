# ruff: noqa: T201 - what an example has to say goes to the terminal
"""Upload photographs, tune on them, and promote the version if it is good enough.

    export SHOTLINE_URL=http://127.0.0.1:8000 SHOTLINE_KEY=sl_…
    python examples/python/upload_and_tune.py photographs --project "Housing" --promote-from 0.9

`photographs` has one sub-folder per class. Needs `pip install httpx2` and the key of an engineer.
Running it again uploads what is new: the gateway knows a photograph by its bytes.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2

FILES_IN_A_REQUEST = 32
BYTES_IN_A_REQUEST = 64 * 1024**2
# The answer comes when all photographs are decoded, and behind the uploads of others.
UPLOAD_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)
TRIES = 5
AWAY = {502, 503, 504}
# What a request with one file is refused with because of that file.
OF_THE_FILE = {409, 413, 422}

Json = dict[str, Any]


class Failed(Exception):
    """The gateway said no, or did not answer.

    Args:
        reason: in its own words where it has any.
        status: of the answer.
        verdicts: on each file, where it refused all files of an upload.
    """

    def __init__(self, reason: str, status: int = 0, verdicts: list[Json] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.verdicts = verdicts


class Away(Failed):
    """Not now: the same request may be answered later."""


def call(client: httpx2.Client, method: str, path: str, **options: Any) -> Any:
    """Send a request and return the JSON of the answer.

    Raises:
        Away: the gateway is just starting, or busy.
        Failed: the answer is a problem; its own words say what to do.
    """
    answer = client.request(method, path, **options)
    if answer.is_success:
        return answer.json()
    kind = Away if answer.status_code in AWAY else Failed
    try:
        problem = answer.json()
        reason = f"{problem['detail']} {problem['fix']}"
    except (ValueError, KeyError, TypeError):
        reason = f"{answer.status_code}: {answer.text[:200]}"
        raise kind(reason, answer.status_code) from None
    raise kind(reason, answer.status_code, problem.get("results"))


def find_or_make_project(client: httpx2.Client, name: str, labels: list[str]) -> Json:
    """Return the project of that name, with a class for each label where it is new."""
    found = call(client, "GET", "/v1/projects", params={"name": name})["items"]
    if found:
        return dict(found[0])
    classes = [{"name": label} for label in labels]
    return dict(call(client, "POST", "/v1/projects", json={"name": name, "classes": classes}))


def upload(client: httpx2.Client, project: str, label: str, paths: list[Path]) -> list[Json]:
    """Upload photographs of one class; return the verdict on each.

    Sent again where the connection broke: a photograph that is there already is a `duplicate`.
    """
    for attempt in range(TRIES):
        with ExitStack() as stack:
            files = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in paths]
            try:
                answer = call(
                    client,
                    "POST",
                    f"/v1/projects/{project}/images",
                    data={"label": label},
                    files=files,
                    timeout=UPLOAD_TIMEOUT,
                )
                return list(answer["results"])
            except (Away, httpx2.TransportError) as error:
                if attempt == TRIES - 1:
                    raise Failed(f"no answer after {TRIES} tries: {error}") from error
            except Failed as error:
                if error.verdicts is not None:  # none of these files can be used; others may be
                    return error.verdicts
                if len(paths) == 1 and error.status in OF_THE_FILE:
                    return [{"file": paths[0].name, "verdict": "rejected", "detail": str(error)}]
                raise
        time.sleep(2**attempt)
    raise AssertionError("the last try returned or raised")


def batches(paths: list[Path]) -> Iterator[list[Path]]:
    """Cut what is to be sent into requests of so many files and, a large file apart, bytes."""
    batch: list[Path] = []
    for path in paths:
        size = sum(other.stat().st_size for other in (*batch, path))
        if batch and (len(batch) == FILES_IN_A_REQUEST or size > BYTES_IN_A_REQUEST):
            yield batch
            batch = []
        batch.append(path)
    if batch:
        yield batch


def follow(client: httpx2.Client, tuning: str) -> Json:
    """Print how a tuning goes, from its server-sent events, and return it at its end."""
    last_event: dict[str, str] = {}
    for attempt in range(TRIES):
        try:
            for name, identifier, state in events(client, tuning, last_event):
                last_event = {"Last-Event-ID": identifier}
                if name == "end":
                    return state
                if progress := state["progress"]:
                    print(f"{progress['phase']}: {progress['done']} of {progress['total']}")
        except (Away, httpx2.TransportError) as error:
            print(f"The connection broke ({error}); the tuning goes on.", file=sys.stderr)
        time.sleep(2**attempt)
    raise Failed(f"the events of tuning {tuning} cannot be followed; ask for it by its id")


def events(
    client: httpx2.Client, tuning: str, headers: dict[str, str]
) -> Iterator[tuple[str, str, Json]]:
    """Yield the kind, id and content of each event; `Last-Event-ID` in `headers` resumes."""
    with client.stream("GET", f"/v1/tunings/{tuning}/events", headers=headers) as answer:
        if answer.is_error:
            kind = Away if answer.status_code in AWAY else Failed
            raise kind(f"{answer.status_code}: {answer.read().decode(errors='replace')[:200]}")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields["event"], fields["id"], json.loads(fields["data"])
                fields = {}


def is_photograph(path: Path) -> bool:
    """Pass over what file managers leave behind; all else is for the gateway to judge."""
    hidden = path.name.startswith(".") or path.name.lower() in {"thumbs.db", "desktop.ini"}
    return path.is_file() and not hidden


def run(
    client: httpx2.Client, folder: Path, name: str, recipe: Json, promote_from: float | None
) -> None:
    """Upload, tune, and promote where the macro accuracy reaches `promote_from`."""
    labels = sorted(it.name for it in folder.iterdir() if it.is_dir() and it.name[0] != ".")
    project = find_or_make_project(client, name, labels)
    for label in labels:
        paths = sorted(path for path in (folder / label).iterdir() if is_photograph(path))
        for batch in batches(paths):
            for verdict in upload(client, project["id"], label, batch):
                if verdict["verdict"] == "rejected":
                    print(f"{verdict['file']}: {verdict['detail']}", file=sys.stderr)
    body = {"recipe": recipe, "seed": 1}
    tuning = call(client, "POST", f"/v1/projects/{project['id']}/tunings", json=body)
    tuning = follow(client, tuning["id"])
    if tuning["state"] != "succeeded":
        raise Failed((tuning["failure"] or {}).get("problem", f"the tuning {tuning['state']}"))
    model = call(client, "GET", f"/v1/models/{tuning['model']['id']}")
    macro = model["accuracy"]["macro"]
    print(
        f"Version {model['version']}: macro accuracy {macro['value']:.3f}"
        f" ({macro['low']:.3f} to {macro['high']:.3f}), {model['accuracy']['basis']}"
    )
    if promote_from is not None and macro["value"] >= promote_from:
        path = f"/v1/projects/{project['id']}/aliases/production"
        # What a version is to replace is measured beside it first; a refusal says by how much.
        gates = f"/v1/models/{model['id']}/gates"
        while call(client, "GET", gates, params={"wait": 20})["state"] in {"queued", "running"}:
            pass
        reason = f"macro accuracy is at least {promote_from}"
        call(client, "PUT", path, json={"version": model["version"], "reason": reason})
        print(f"Version {model['version']} is in production.")


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Upload photographs and tune on them.")
    parser.add_argument("folder", type=Path, help="one sub-folder per class")
    parser.add_argument("--project", required=True, help="its name; made where there is none")
    parser.add_argument(
        "--promote-from", type=float, help="promote a version of this macro accuracy or more"
    )
    parser.add_argument("--steps", type=int, help="gradient steps; the gateway's default is good")
    options = parser.parse_args()
    recipe = {} if options.steps is None else {"steps": options.steps}
    key = os.environ.get("SHOTLINE_KEY", "")
    if not (key and key.isascii()):
        parser.error("SHOTLINE_KEY has to hold an API key of an engineer")
    with httpx2.Client(
        base_url=os.environ.get("SHOTLINE_URL", "http://127.0.0.1:8000"),
        headers={"Authorization": f"Bearer {key}"},
        timeout=httpx2.Timeout(60.0, connect=5.0),
    ) as client:
        try:
            run(client, options.folder, options.project, recipe, options.promote_from)
        except (Failed, httpx2.TransportError, OSError) as error:
            print(f"Failed: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
