"""From the start of the gateway's process to its first answered prediction."""

import http.client
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving.bare import Bare
from benchmarks.serving.gateway import environment_of, gateway, redis
from benchmarks.serving.home import Home, prepare
from benchmarks.serving.measure import Check
from benchmarks.serving.plots import bars
from benchmarks.serving.stand import Bench, Outcome

_KEPT_SECONDS, _TORCH_SECONDS, _PATIENCE = 6.0, 15.0, 300.0
_ENGINE = "SHOTLINE_BACKBONE_ENGINE"
_NEED_TORCH = {"TorchEncoder", "CompiledTorchEncoder"}


def run(bench: Bench) -> Outcome:
    """Start with an empty folder of engines, then with what that start kept, then with PyTorch."""
    logs, folder = bench.work / "logs", bench.work / "home"
    logs.mkdir(exist_ok=True)
    with redis(logs) as queue:
        torch, auto = (environment_of(folder, queue) | {_ENGINE: e} for e in ("torch", "auto"))
        with Bare(torch, bench.photographs) as bare:  # keeps nothing
            home = prepare(folder, bare.facts())
        seconds = {
            "auto, nothing kept": [_start(bench, home, auto, logs)],
            "auto, engine kept": [_start(bench, home, auto, logs) for _ in range(bench.runs)],
            "torch": [_start(bench, home, torch, logs) for _ in range(bench.runs)],
        }
        with Bare(auto, bench.photographs) as bare:
            chosen = bare.facts()
    middle = {name: median(values) for name, values in seconds.items()}
    target = _TORCH_SECONDS if chosen.engine in _NEED_TORCH else _KEPT_SECONDS
    content: dict[str, Any] = {
        **bench.facts(),
        "chosen": chosen._asdict(),
        "median_seconds": middle,
        "seconds": seconds,
    }
    kept = f"start with {chosen.engine} kept"
    checks = [
        Check(kept, middle["auto, engine kept"], target, "s"),
        Check("start with torch", middle["torch"], _TORCH_SECONDS, "s"),
    ]
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
