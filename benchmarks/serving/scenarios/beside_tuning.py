"""Predictions at 30 % load while a worker tunes on the same machine, against the same without."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from benchmarks.common import data_root, reencoded
from benchmarks.serving.client import Seen, send
from benchmarks.serving.gateway import SHOTLINE, environment_of
from benchmarks.serving.measure import Check, medians, spread
from benchmarks.serving.plots import cumulative
from benchmarks.serving.processes import serving
from benchmarks.serving.stand import Bench, Outcome, Stand, stand
from models.evaluation.splits import draw_shots

_LOAD, _MOST = 0.3, 2.0
_SECONDS, _SATURATION_SECONDS, _PATIENCE = 20.0, 6.0, 300.0
_SET, _SHOTS, _STEPS = "xsdd", 16, 100_000  # more steps than a run lasts; it is cancelled
_STATES = ("succeeded", "failed", "cancelled")


def run(bench: Bench) -> Outcome:
    """Measure without and with in turn; each tuning starts from an empty feature store."""
    with stand(bench) as made:
        saturated, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
        client = httpx2.Client(
            base_url=made.server.address, headers=made.home.headers, timeout=120.0
        )
        with client, _worker(made):
            project = _upload(client)
            pairs = [
                _pair(made, client, project, _LOAD * saturated.throughput, seed)
                for seed in range(bench.runs)
            ]
        facts = made.facts()
    rounds = [_figures(*pair) for pair in pairs]
    middle = medians(rounds)
    content: dict[str, Any] = {
        **facts,
        "tuning": f"{_SET}, 7 classes of {_SHOTS} photographs, a worker with its own settings",
        "load": _LOAD,
        "saturation_per_second": saturated.throughput,
        "median": middle,
        "rounds": rounds,
    }
    series = {
        "without": [value for alone, _ in pairs for value in alone.latencies],
        "beside a tuning": [value for _, beside in pairs for value in beside.latencies],
    }
    title = f"Latency at {_LOAD:.0%} of saturation, without and beside a tuning"
    check = Check("p99 beside a tuning / without", middle["ratio"], _MOST)
    return Outcome(content, [check], [cumulative("latency", title, series)])


def _figures(alone: Seen, beside: Seen) -> dict[str, float]:
    without, beside_ms = spread(alone.latencies), spread(beside.latencies)
    return {
        "without_p50_ms": without["p50"],
        "beside_p50_ms": beside_ms["p50"],
        "without_p99_ms": without["p99"],
        "beside_p99_ms": beside_ms["p99"],
        "failures": float(alone.failures + beside.failures),
        "ratio": beside_ms["p99"] / without["p99"],
    }


@contextlib.contextmanager
def _worker(made: Stand) -> Iterator[None]:
    """Run the product's worker, with the product's niceness and threads."""
    environment = environment_of(made.home.folder, made.settings.queue.url.get_secret_value())
    log = made.bench.work / "logs" / "worker.log"
    with serving([*SHOTLINE, "worker"], environment, log):
        _until(lambda: log.exists() and " ready." in log.read_text(errors="replace"), "a worker")
        yield


def _upload(client: httpx2.Client) -> str:
    """Make a project with photographs; return its path."""
    made = client.post("/v1/projects", json={"name": "tuned beside"}).raise_for_status()
    project = f"/v1/projects/{made.json()['id']}"
    dataset = reencoded(data_root() / _SET)
    labels = [image.label for image in dataset.images]
    drawn, _ = draw_shots(labels, [image.group for image in dataset.images], _SHOTS, 1)
    for number, spec in enumerate(dataset.classes):
        files = [
            ("images", (f"{index}.jpg", dataset.images[index].read(), "image/jpeg"))
            for index in drawn
            if labels[index] == number
        ]
        body = {"name": spec.name, "prompt_name": spec.prompt_name}
        client.post(f"{project}/classes", json=body).raise_for_status()
        client.post(f"{project}/images", data={"label": spec.name}, files=files).raise_for_status()
    return project


def _pair(
    made: Stand, client: httpx2.Client, project: str, rate: float, seed: int
) -> tuple[Seen, Seen]:
    plan = made.plan(
        mode="open",
        arrivals="poisson",
        rate=rate,
        seconds=made.bench.seconds(_SECONDS),
        seed=seed,
    )
    alone = send(plan)
    shutil.rmtree(made.home.folder / "features", ignore_errors=True)
    started = client.post(f"{project}/tunings", json={"recipe": {"steps": _STEPS}})
    tuning = f"/v1/tunings/{started.raise_for_status().json()['id']}"
    _until(lambda: _state(client, tuning) == "running", "a running tuning")
    beside = send(plan)
    state = _state(client, tuning)
    if state != "running":
        raise RuntimeError(f"The tuning was {state} before the measurement was over.")
    client.post(f"{tuning}/cancel").raise_for_status()
    _until(lambda: _state(client, tuning) in _STATES, "the end of a tuning")
    return alone, beside


def _state(client: httpx2.Client, tuning: str) -> str:
    return str(client.get(tuning).raise_for_status().json()["state"])


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"There was no {what} within {_PATIENCE:.0f} s.")
        time.sleep(0.1)
