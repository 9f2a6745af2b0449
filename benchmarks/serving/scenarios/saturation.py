"""Throughput of the gateway under many clients, over that of its encoder alone."""

from typing import Any

from benchmarks.serving.measure import Check, medians
from benchmarks.serving.plots import bars
from benchmarks.serving.stand import Bench, Outcome, Stand, stand

_SECONDS, _LEAST = 10.0, 0.95


def run(bench: Bench) -> Outcome:
    """Measure both in turn; the one that goes first changes with the rounds."""
    with stand(bench) as made:
        _, batch = made.saturate(bench.seconds(_SECONDS))
        runs = [
            _round(made, max(1, round(batch)), first=number % 2 == 0)
            for number in range(bench.runs)
        ]
        facts = made.facts()
    middle = medians(runs)
    check = Check("throughput / bare encoder", middle["ratio"], _LEAST, at_most=False)
    rows = {
        "gateway": middle["gateway_per_second"],
        "bare encoder": middle["bare_per_second"],
        "bare, decode then encode": middle["bare_sequential_per_second"],
    }
    title = "Images a second, the gateway under load and its encoder alone"
    content: dict[str, Any] = {
        **facts,
        "bare": "decode workers make the next batch while one is encoded, at the gateway's mean"
        " batch; sequential: one thread decodes a batch, then encodes it",
        "median": middle,
        "rounds": runs,
    }
    return Outcome(content, [check], [bars("throughput", title, "images a second", rows)])


def _round(made: Stand, batch: int, *, first: bool) -> dict[str, float]:
    seconds = made.bench.seconds(_SECONDS)
    found = {} if first else _bare(made, batch, seconds)
    seen, mean_batch = made.saturate(seconds)
    found = found or _bare(made, batch, seconds)
    return {
        "gateway_per_second": seen.throughput,
        "gateway_mean_batch": mean_batch,
        "failures": float(seen.failures),
        "generator_cores": seen.cores(),
        **found,
        "ratio": seen.throughput / found["bare_per_second"],
        "ratio_sequential": seen.throughput / found["bare_sequential_per_second"],
    }


def _bare(made: Stand, batch: int, seconds: float) -> dict[str, float]:
    workers = made.settings.prediction.decode_workers
    return {
        "bare_batch": float(batch),
        "bare_per_second": made.bare.throughput(batch, seconds, decode_workers=workers),
        "bare_sequential_per_second": made.bare.throughput(batch, seconds, decode_workers=0),
    }
