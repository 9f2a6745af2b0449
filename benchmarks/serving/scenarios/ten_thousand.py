"""Ten thousand resident models against one: memory, latency and throughput."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from benchmarks.serving.bare import Bare
from benchmarks.serving.client import send
from benchmarks.serving.engine import Facts, share_engine
from benchmarks.serving.gateway import counters, environment_of, gateway, redis
from benchmarks.serving.home import Home, prepare
from benchmarks.serving.measure import Check, medians, spread
from benchmarks.serving.plots import bars
from benchmarks.serving.processes import Server
from benchmarks.serving.stand import Bench, Outcome, plan_for

_MODELS, _CLASSES = 10_000, 10
_MB, _MORE = 500.0, 1.05
_SECONDS, _CLIENTS, _SETTLE = 8.0, 48, 2.5


class _One(NamedTuple):
    home: Home
    server: Server


def run(bench: Bench) -> Outcome:
    """Run both gateways, the one that is not measured paused; measure them in turn."""
    models, logs = bench.count(_MODELS), bench.work / "logs"
    logs.mkdir(exist_ok=True)
    with redis(logs) as queue:
        with Bare(environment_of(bench.work / "none", queue), bench.photographs) as bare:
            facts = bare.facts()
        begun = time.monotonic()
        with (
            _gateway(bench, facts, queue, "one", 1) as one,
            _gateway(bench, facts, queue, "many", models) as many,
        ):
            prepared = time.monotonic() - begun
            one.server.resume()
            # A p99 of one caller has few requests behind it: twice as many runs as elsewhere.
            rounds = [_round(bench, one, many, number) for number in range(2 * bench.runs)]
    middle = medians(rounds)
    content: dict[str, Any] = {
        **bench.facts(),
        "runs": len(rounds),
        "engine": facts._asdict(),
        "models": models,
        "classes": _CLASSES,
        "prepare_and_start_seconds": prepared,
        "clients": _CLIENTS,
        "median": middle,
        "rounds": rounds,
    }
    checks = [
        Check("memory above one model", middle["more_mb"], _MB, "MB"),
        Check("latency p50 / one model", middle["p50_ratio"], _MORE),
        Check("latency p99 / one model", middle["p99_ratio"], _MORE),
        Check("throughput / one model", middle["throughput_ratio"], 1 / _MORE, at_most=False),
    ]
    rows = {
        f"{what}, {count} models": middle[f"{key}_{name}"]
        for what, name in (("p50", "p50_ms"), ("p99", "p99_ms"))
        for count, key in ((1, "one"), (models, "many"))
    }
    title = "Latency of single requests over all projects"
    return Outcome(content, checks, [bars("latency", title, "milliseconds", rows)])


@contextlib.contextmanager
def _gateway(bench: Bench, facts: Facts, queue: str, name: str, lines: int) -> Iterator[_One]:
    """Run a gateway with all models loaded; it is paused."""
    folder = bench.work / name
    home = prepare(folder, facts, lines=lines, classes=_CLASSES)
    share_engine(bench.work / "none", folder)
    log = bench.work / "logs" / f"{name}.log"
    with gateway(environment_of(folder, queue), log) as server:
        while counters(server, home.key).values["shotline_models_resident"] < lines:
            time.sleep(0.2)
        send(plan_for(bench, home, server, concurrency=_CLIENTS, seconds=bench.seconds(5.0)))
        server.pause()
        yield _One(home, server)


def _round(bench: Bench, one: _One, many: _One, number: int) -> dict[str, float]:
    order = [("one", one), ("many", many)]
    found: dict[str, float] = {}
    for key, made in order if number % 2 == 0 else order[::-1]:
        found |= {f"{key}_{name}": value for name, value in _measure(bench, made, number).items()}
    return found | {
        "more_mb": found["many_rss_mb"] - found["one_rss_mb"],
        "p50_ratio": found["many_p50_ms"] / found["one_p50_ms"],
        "p99_ratio": found["many_p99_ms"] / found["one_p99_ms"],
        "throughput_ratio": found["many_per_second"] / found["one_per_second"],
    }


def _measure(bench: Bench, made: _One, seed: int) -> dict[str, float]:
    server = made.server
    server.resume()
    time.sleep(_SETTLE)  # what it does each second was left undone
    seconds = bench.seconds(_SECONDS)
    single = send(plan_for(bench, made.home, server, seconds=seconds, seed=seed))
    full = send(
        plan_for(bench, made.home, server, concurrency=_CLIENTS, seconds=seconds, seed=seed)
    )
    rss = server.rss_mb()
    server.pause()
    latency = spread(single.latencies)
    return {
        "p50_ms": latency["p50"],
        "p99_ms": latency["p99"],
        "per_second": full.throughput,
        "failures": float(single.failures + full.failures),
        "rss_mb": rss,
    }
