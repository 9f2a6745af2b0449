"""The gateway, LitServe, infinity and a plain FastAPI handler, with the same weights in one run.

infinity loads no open_clip checkpoint, so the starter is no backbone for it: it is compared with
the gateway on a ViT-B/32 with random weights that both can load, the others on the starter. Every
server is asked in the way that its own documentation shows: the gateway by raw JPEG, LitServe and
the handler by a form with a file, infinity by JSON with a data URI.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import open_clip

from benchmarks.serving.bare import Bare
from benchmarks.serving.client import Seen, send
from benchmarks.serving.gateway import environment_of, gateway, redis
from benchmarks.serving.home import prepare
from benchmarks.serving.load import Plan
from benchmarks.serving.measure import Check, medians, spread
from benchmarks.serving.plots import bars
from benchmarks.serving.processes import Server, free_port, serving
from benchmarks.serving.stand import Bench, Outcome
from models.backbone_files import STARTER_FOLDER

_ROOT = Path(__file__).parents[3]
_ENVIRONMENT = _ROOT / "build/peers"
_PYTHON = _ENVIRONMENT / "bin/python"
_REQUIREMENTS = Path(__file__).parents[1] / "peers/requirements.txt"
_PACKAGE = "benchmarks.serving.peers"
_BOUNDARY = "shotline-benchmark-boundary"
_SECONDS, _CLIENTS, _BATCH, _COMMON_LOAD = 6.0, 32, 16, 0.7
_LEAST_RATE = 0.5  # a second, where the slowest answered nothing in its time
_OURS = "shotline"

# Nobody is told anything, nothing is fetched, and all threads wait alike.
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONPATH": str(_ROOT),
}


class Peer(NamedTuple):
    """A running server, and how it is asked."""

    server: Server
    path: str
    bodies: Sequence[str]
    content_type: str
    headers: dict[str, str]

    def plan(self, **values: Any) -> Plan:
        """Return a plan for the load generator."""
        return Plan(
            port=self.server.port,
            paths=[self.path],
            bodies=self.bodies,
            content_type=self.content_type,
            headers=self.headers,
            **values,
        )


def run(bench: Bench) -> Outcome:
    """Measure all servers of a backbone in turn, those that wait paused."""
    _install()
    (bench.work / "logs").mkdir(exist_ok=True)
    vit, cosine = _make_backbone(bench.work / "vit")
    found: dict[str, dict[str, Any]] = {}
    for backbone, source, names in (
        ("starter", f"local-dir:{STARTER_FOLDER}", ("LitServe", "FastAPI + open_clip")),
        ("ViT-B/32, random", f"local-dir:{vit / 'open_clip'}", ("infinity",)),
    ):
        with contextlib.ExitStack() as stack:
            peers = {_OURS: stack.enter_context(_ours(bench, source, backbone))}
            for name in names:
                peers[name] = stack.enter_context(_peer(bench, name, source, vit))
            found[backbone] = _compare(bench, peers)
    content: dict[str, Any] = {
        **bench.facts(),
        "clients": _CLIENTS,
        "peers": dict(line.split("==") for line in _pins()),
        "backbones": {
            "ViT-B/32, random": "infinity loads no open_clip checkpoint, so it is compared on these"
            " weights, saved for both libraries; LitServe and the handler on the starter",
            "cosine_between_both": cosine,
        },
        "bodies": {
            _OURS: "raw JPEG",
            "LitServe": "multipart form, classes decided",
            "FastAPI + open_clip": "multipart form, classes decided",
            "infinity": "JSON with a data URI, embedding alone",
        },
        "found": found,
    }
    figures = [
        bars(f"{what}_{number}", f"{words}, {backbone}", unit, _of(result["median"], key))
        for number, (backbone, result) in enumerate(found.items())
        for what, key, words, unit in (
            ("throughput", "per_second", "Images a second, closed loop", "images a second"),
            ("p99", "open_p99_ms", "p99 at a common rate", "milliseconds"),
        )
    ]
    return Outcome(content, _checks(found), figures)


def _of(middle: Mapping[str, Mapping[str, float]], key: str) -> dict[str, float]:
    return {name: figures[key] for name, figures in middle.items()}


def _checks(found: Mapping[str, Mapping[str, Any]]) -> list[Check]:
    checks = []
    for backbone, result in found.items():
        for name in result["median"]:
            if name == _OURS:
                continue
            ratios = result["ratios"][name]
            checks += [
                Check(f"{backbone}: throughput / {name}", ratios["throughput"], 1.0, at_most=False),
                Check(f"{backbone}: p99 closed / {name}", ratios["p99"], 1.0),
                Check(f"{backbone}: p99 at one rate / {name}", ratios["open_p99"], 1.0),
            ]
    return checks


def _compare(bench: Bench, peers: Mapping[str, Peer]) -> dict[str, Any]:
    """Return medians, ratios within rounds, and the rounds."""
    for peer in peers.values():
        _alone(peer, concurrency=_CLIENTS, seconds=_seconds(bench))  # all that is set up once
    closed = [
        {name: _alone(peer, concurrency=_CLIENTS, seconds=_seconds(bench), seed=number)
         for name, peer in _turned(peers, number)}
        for number in range(bench.runs)
    ]  # fmt: skip
    slowest = min(median(one[name].throughput for one in closed) for name in peers)
    rate = max(_LEAST_RATE, _COMMON_LOAD * slowest)
    opened = [
        {name: _alone(
            peer, mode="open", arrivals="poisson", rate=rate, seconds=2 * _seconds(bench),
            seed=number,
        ) for name, peer in _turned(peers, number)}
        for number in range(bench.runs)
    ]  # fmt: skip
    rounds = [
        {name: _figures(one[name], other[name]) for name in peers}
        for one, other in zip(closed, opened, strict=True)
    ]
    return {
        "common_rate": rate,
        "median": {name: medians([one[name] for one in rounds]) for name in peers},
        "ratios": {name: _ratios(rounds, name) for name in peers if name != _OURS},
        "rounds": rounds,
    }


def _seconds(bench: Bench) -> float:
    """Return how long to measure; a slow server needs seconds for one answer to each client."""
    return 5.0 if bench.quick else _SECONDS


def _turned(peers: Mapping[str, Peer], number: int) -> list[tuple[str, Peer]]:
    """Return them in another order each round."""
    listed = list(peers.items())
    start = number % len(listed)
    return listed[start:] + listed[:start]


def _alone(peer: Peer, **values: Any) -> Seen:
    peer.server.resume()
    try:
        return send(peer.plan(warmup=2.0, **values))
    finally:
        peer.server.pause()


def _figures(closed: Seen, opened: Seen) -> dict[str, float]:
    full, common = spread(closed.latencies), spread(opened.latencies)
    return {
        "per_second": closed.throughput,
        "p50_ms": full["p50"],
        "p99_ms": full["p99"],
        "open_p50_ms": common["p50"],
        "open_p99_ms": common["p99"],
        "failures": float(closed.failures + opened.failures),
    }


def _ratios(rounds: Sequence[Mapping[str, Mapping[str, float]]], name: str) -> dict[str, float]:
    def middle(key: str) -> float:
        return median(one[_OURS][key] / one[name][key] for one in rounds)

    return {
        "throughput": middle("per_second"),
        "p99": middle("p99_ms"),
        "open_p99": middle("open_p99_ms"),
    }


def _pins() -> list[str]:
    lines = _REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _install() -> None:
    """Make the peers' environment, unless it is there with these very requirements."""
    done = _ENVIRONMENT / "installed.txt"
    if done.exists() and done.read_text() == _REQUIREMENTS.read_text():
        return
    venv.create(_ENVIRONMENT, with_pip=True)
    # What the requirements do not name is taken from the environment that runs this.
    site = Path(open_clip.__file__).parents[1]
    inside = Path("lib") / f"python3.{sys.version_info.minor}" / "site-packages"
    (_ENVIRONMENT / inside / "shared.pth").write_text(f"{site}\n")
    command = [str(_PYTHON), "-m", "pip", "install", "-qq", "--no-deps", "-r"]
    command.append(str(_REQUIREMENTS))
    subprocess.run(command, check=True)  # noqa: S603 - our own environment
    done.write_text(_REQUIREMENTS.read_text())


def _make_backbone(folder: Path) -> tuple[Path, float]:
    """Write the backbone that infinity and open_clip can load; return how alike the two are."""
    command = [str(_PYTHON), "-m", f"{_PACKAGE}.make_backbone", str(folder)]
    said = subprocess.run(  # noqa: S603 - our own environment
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **_QUIET},
        cwd=_ROOT,
    )
    return folder, float(said.stdout.split()[-1])


@contextlib.contextmanager
def _ours(bench: Bench, source: str, name: str) -> Iterator[Peer]:
    folder, log = bench.work / name.replace("/", "-"), bench.work / "logs" / "gateway.log"
    with redis(bench.work / "logs") as queue:
        environment = environment_of(folder, queue) | {"SHOTLINE_BACKBONE_SOURCE": source}
        with Bare(environment, bench.photographs) as bare:
            facts = bare.facts()
        home = prepare(folder, facts)
        with gateway(environment, log) as server:
            bodies = [str(path) for path in bench.photographs]
            server.pause()
            yield Peer(server, home.lines[0].predict, bodies, "image/jpeg", home.headers)


@contextlib.contextmanager
def _peer(bench: Bench, name: str, source: str, vit: Path) -> Iterator[Peer]:
    port = free_port()
    if name == "infinity":
        command = _infinity(vit / "transformers", port)
        path, content_type = "/embeddings", "application/json"
        bodies = _written(bench, "json", [_data_uri(path) for path in bench.photographs])
    else:
        module = "litserve_server" if name == "LitServe" else "plain_server"
        command = [str(_PYTHON), "-m", f"{_PACKAGE}.{module}", source, str(port)]
        command += [str(_BATCH)] if name == "LitServe" else []
        path, content_type = "/predict", f"multipart/form-data; boundary={_BOUNDARY}"
        bodies = _written(bench, "form", [_form(path) for path in bench.photographs])
    log = bench.work / "logs" / f"{name}.log"
    with serving(command, _QUIET, log, port=port) as server:
        server.wait_for("/health")
        server.pause()
        yield Peer(server, path, bodies, content_type, {})


def _infinity(model: Path, port: int) -> list[str]:
    return [
        str(_ENVIRONMENT / "bin/infinity_emb"), "v2",
        "--model-id", str(model), "--served-model-name", "vit",
        "--engine", "torch", "--device", "cpu", "--batch-size", str(_BATCH),
        "--no-bettertransformer", "--no-model-warmup", "--host", "127.0.0.1", "--port", str(port),
        "--log-level", "warning",
    ]  # fmt: skip


def _written(bench: Bench, kind: str, bodies: Sequence[bytes]) -> list[str]:
    paths = [bench.work / f"{number}.{kind}" for number in range(len(bodies))]
    for path, body in zip(paths, bodies, strict=True):
        path.write_bytes(body)
    return [str(path) for path in paths]


def _form(photograph: Path) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="part.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + photograph.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _data_uri(photograph: Path) -> bytes:
    encoded = base64.b64encode(photograph.read_bytes()).decode()
    uri = f"data:image/jpeg;base64,{encoded}"
    return json.dumps({"model": "vit", "modality": "image", "input": [uri]}).encode()
