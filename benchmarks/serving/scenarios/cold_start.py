"""From the start of the gateway's process to its first answered prediction."""

import http.client
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, get_args

from app.core.settings import BackboneSettings
from benchmarks.serving.bare import Bare
from benchmarks.serving.gateway import environment_of, gateway, redis
from benchmarks.serving.home import Home, prepare
from benchmarks.serving.measure import Check
from benchmarks.serving.plots import bars
from benchmarks.serving.stand import Bench, Outcome

_CACHED_SECONDS, _TORCH_SECONDS, _PATIENCE = 6.0, 15.0, 300.0
_ENGINE = "SHOTLINE_BACKBONE_ENGINE"


def run(bench: Bench) -> Outcome:
    """Start with an empty folder of engines, then with what that start left, then with PyTorch."""
    auto = "auto" in get_args(BackboneSettings.model_fields["engine"].annotation)
    logs = bench.work / "logs"
    logs.mkdir(exist_ok=True)
    with redis(logs) as queue:
        folder = bench.work / "home"
        environment = environment_of(folder, queue)
        torch = environment | {_ENGINE: "torch"}
        with Bare(torch, bench.photographs) as bare:
            facts = bare.facts()
        home = prepare(folder, facts)
        seconds: dict[str, list[float]] = {}
        if auto:
            chosen = environment | {_ENGINE: "auto"}
            seconds["auto, nothing cached"] = [_start(bench, home, chosen, logs)]
            seconds["auto, cached"] = [_start(bench, home, chosen, logs) for _ in range(bench.runs)]
        seconds["torch"] = [_start(bench, home, torch, logs) for _ in range(bench.runs)]
    middle = {name: median(values) for name, values in seconds.items()}
    checks = [Check("start with torch, median", middle["torch"], _TORCH_SECONDS, "s")]
    if auto:
        cached = middle["auto, cached"]
        checks.insert(0, Check("start with a cached engine, median", cached, _CACHED_SECONDS, "s"))
    content: dict[str, Any] = {
        **bench.facts(),
        "auto_engine": auto,
        "median_seconds": middle,
        "seconds": seconds,
    }
    title = "From the process's start to its first answer, medians"
    return Outcome(content, checks, [bars("seconds", title, "seconds", middle)])


def _start(bench: Bench, home: Home, environment: Mapping[str, str], logs: Path) -> float:
    """Start a gateway and ask it until it decides; return the seconds that took."""
    image = bench.photographs[0].read_bytes()
    begun = time.monotonic()
    with gateway(environment, logs / "start.log", wait=False) as server:
        while not _decides(server.port, home, image):
            if server.process.poll() is not None or time.monotonic() - begun > _PATIENCE:
                raise RuntimeError(f"The gateway never decided: {server.log.read_text()[-2000:]}")
            time.sleep(0.02)
        return time.monotonic() - begun


def _decides(port: int, home: Home, image: bytes) -> bool:
    headers = {**home.headers, "Content-Type": "image/jpeg"}
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        client.request("POST", home.lines[0].predict, image, headers)
        return client.getresponse().status == 200
    except OSError:
        return False
    finally:
        client.close()
