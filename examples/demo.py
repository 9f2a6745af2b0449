"""The whole of Shotline in three minutes: photographs in over HTTP, decisions out.

Starts the service on a temporary folder, uploads 16 photographs of each class, tunes through the
queue, promotes, asks for decisions on 200 others, and compares them with the backbone without
tuning. Run it with `make demo`.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
import typer
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from app.cli.api import Api
from app.cli.console import err, fail, out, progress_bar
from app.cli.push import TuningBar, upload
from app.cli.tables import collapse_table, evaluation_table, seconds_table
from examples.demo_images import SEED, SETS, DemoClass, Sample, draw
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.decision import class_probabilities
from models.errors import ShotlineError
from models.evaluation.compared import MAX_WRONG
from models.evaluation.metrics import evaluate
from models.evaluation.results import Evaluation, WrongImage
from models.files import write_atomic
from models.pixels import to_pixels
from models.report import Mistake, ReportData, render_report
from models.report.pictures import draw_photographs


class Service(NamedTuple):
    """A service that was started for the demo."""

    address: str
    key: str
    process: "subprocess.Popen[str]"


class Answers(NamedTuple):
    """What the service said of the photographs it was asked about."""

    probabilities: Float[Tensor, "n n_classes"]
    milliseconds: list[float]


def main(
    which: Annotated[Literal["textile", "three", "elpv"], typer.Option("--set")] = "textile",
    report: Annotated[Path, typer.Option(help="Where the report goes.")] = Path(
        "build/demo-report.html"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the service up.")] = False,
) -> None:
    """Run the demo and print what came of it."""
    try:
        _demo(which, report, keep=keep)
    except ShotlineError as error:
        fail(error)
        raise typer.Exit(2) from error


def _demo(which: str, report: Path, *, keep: bool) -> None:
    classes = SETS[which]()
    train, test = draw(classes)
    seconds: dict[str, float] = {}
    with _service(seconds, keep=keep) as service, Api(service.address, service.key) as api:
        artifact = _tune(api, classes, train, seconds, name=f"demo {which}")
        with _timed(seconds, "predict"):
            answers = _ask(api, artifact.project, test, [spec.name for spec in classes])
    backbone = load_backbone(artifact.artifact.header.backbone)
    with _timed(seconds, "zero-shot"), err.status("The same photographs without tuning …"):
        before = _zero_shot(artifact.artifact, test, backbone)
    with err.status("Drawing what it got wrong …"):
        mistakes = _mistakes(classes, test, answers, artifact.artifact, backbone)
    labels = torch.tensor([sample.label for sample in test])
    tuned = evaluate(answers.probabilities, labels, "holdout")
    untuned = evaluate(before, labels, "holdout")
    milliseconds = median(answers.milliseconds)
    _print(artifact.artifact, tuned, untuned, seconds)
    data = ReportData.from_artifact(
        artifact.artifact,
        test=tuned,
        test_zero_shot=untuned,
        mistakes=mistakes,
        seconds=seconds,
        prediction_ms=milliseconds,
        title=f"Shotline demo: {which}",
        command=f"make demo SET={which}",
    )
    write_atomic(report, render_report(data).encode())
    out.print(f"A prediction takes {milliseconds:.0f} ms (median of {len(test)}).")
    out.print(f"Report: {report.absolute()}", highlight=False, soft_wrap=True)


class Tuned(NamedTuple):
    """What came of the tuning: the project's id, and the artifact as the service gives it out."""

    project: str
    artifact: Artifact


def _tune(
    api: Api,
    classes: Sequence[DemoClass],
    train: Sequence[Sample],
    seconds: dict[str, float],
    *,
    name: str,
) -> Tuned:
    specs = [{"name": spec.name, "prompt_name": spec.prompt_name} for spec in classes]
    made = api.call("POST", "/v1/projects", json={"name": name, "classes": specs}).json()
    files = [(classes[sample.label].name, sample.path) for sample in train]
    with progress_bar() as bar:
        with _timed(seconds, "upload"):
            upload(api, bar, made["id"], files, ok=[])
        with _timed(seconds, "queue"):
            tuning = api.tune(made["id"], recipe={}, seed=SEED, progress=TuningBar(bar))
    api.promote(made["id"], tuning["model"]["version"])
    data = api.call("GET", f"/v1/models/{tuning['model']['id']}/artifact").content
    artifact = Artifact.from_bytes(data)
    out.print(f"Queued to succeeded: {seconds['queue']:.1f} s.", highlight=False)
    # What the tuning says of itself follows: each second counts once.
    spent = artifact.header.metrics.seconds
    seconds["queue"] -= sum(spent.values())
    seconds |= spent
    return Tuned(made["id"], artifact)


def _ask(api: Api, project: str, test: Sequence[Sample], names: list[str]) -> Answers:
    """Send the photographs one by one, as a camera would."""
    rows, milliseconds = [], []
    for sample in track(test, "Asking for decisions", console=err):
        data = sample.path.read_bytes()
        start = time.perf_counter()
        answer = api.predict(project, data)
        milliseconds.append(1000 * (time.perf_counter() - start))
        shares = {row["label"]: row["probability"] for row in answer["probabilities"]}
        rows.append([shares[name] for name in names])
    return Answers(torch.tensor(rows), milliseconds)


def _zero_shot(
    artifact: Artifact, test: Sequence[Sample], backbone: Backbone
) -> Float[Tensor, "n n_classes"]:
    """Classify the photographs by the hand-written prompts, in this process."""
    view, spec = artifact.header.view, backbone.pixels
    pixels = [
        to_pixels(sample.path.read_bytes(), view, spec.size, spec.interpolation) for sample in test
    ]
    features = backbone.encode_images(torch.from_numpy(np.stack(pixels))).numpy()
    scale, written = artifact.header.logit_scale, artifact.tensors["zero_shot_features"]
    return torch.from_numpy(class_probabilities(features, written, scale))


def _mistakes(
    classes: Sequence[DemoClass],
    test: Sequence[Sample],
    answers: Answers,
    artifact: Artifact,
    backbone: Backbone,
) -> list[Mistake]:
    """Draw the photographs that were decided wrong with the highest probability."""
    shares, predicted = answers.probabilities.max(dim=1)
    wrong = [index for index, sample in enumerate(test) if predicted[index] != sample.label]
    wrong.sort(key=lambda index: float(shares[index]), reverse=True)
    files = []
    for index in wrong[:MAX_WRONG]:
        data = test[index].path.read_bytes()
        one = WrongImage(
            sha256=sha256(data).hexdigest(),
            name=test[index].path.name,
            label=classes[test[index].label].name,
            predicted=classes[int(predicted[index])].name,
            probability=float(shares[index]),
        )
        files.append((one, data))
    return draw_photographs(artifact, files, backbone)


def _print(
    artifact: Artifact, tuned: Evaluation, untuned: Evaluation, seconds: dict[str, float]
) -> None:
    header, metrics = artifact.header, artifact.header.metrics
    out.print(evaluation_table(header.classes, tuned, untuned))
    out.print(collapse_table(metrics.collapse_before, metrics.collapse_after, len(header.classes)))
    out.print(seconds_table(seconds))


@contextlib.contextmanager
def _service(seconds: dict[str, float], *, keep: bool) -> Iterator[Service]:
    """Run `shotline up` on a temporary folder."""
    home = Path(tempfile.mkdtemp(prefix="shotline-demo-"))
    command = [sys.executable, "-m", "app.cli.main", "up", "--data", str(home), "--port", "0"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(  # noqa: S603 - our own command
                command,
                env=without_settings(os.environ),
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        stack.callback(_stop, process, home)
        with _timed(seconds, "start"), err.status("Starting the service …"):
            service = _read_service(process, home)
        try:
            yield service
        finally:
            if keep:
                stack.pop_all()
                out.print(f"The service stays up at {service.address} on {home}", soft_wrap=True)
                out.print(f"Key: {service.key}\nStop it with: kill {process.pid}", soft_wrap=True)


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would lead the demo to somebody's real database, queue or backbone."""
    return {k: v for k, v in environment.items() if not k.startswith("SHOTLINE_")}


def _stop(process: "subprocess.Popen[str]", home: Path) -> None:
    failed = process.poll() is not None  # by itself: its logs are wanted
    process.terminate()  # SIGINT would be ignored where the demo runs in the background
    process.wait()
    if not failed:
        shutil.rmtree(home)


def _read_service(process: "subprocess.Popen[str]", home: Path) -> Service:
    """Read address and first key from what `shotline up` prints."""
    address = key = None
    for line in process.stdout or ():
        if found := re.search(r"Shotline is at (\S+)", line):
            address = found[1]
        if found := re.search(r"shown this once: (\S+)", line):
            key = found[1]
        if address and key:
            return Service(address, key, process)
    raise ShotlineError(
        f"The service ended with exit code {process.wait()} before it was ready.",
        fix=f"Read the logs in {home / 'logs'}.",
    )


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    seconds[name] = time.monotonic() - start


if __name__ == "__main__":
    typer.run(main)
