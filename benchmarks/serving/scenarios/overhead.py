"""What a request costs beside decoding and encoding, one at a time on an idle gateway."""

from benchmarks.serving.client import Seen, send
from benchmarks.serving.measure import Check, medians, spread
from benchmarks.serving.plots import cumulative
from benchmarks.serving.stand import Bench, Outcome, stand

_SECONDS, _P50_MS, _P99_MS = 15.0, 3.0, 10.0


def run(bench: Bench) -> Outcome:
    """Take decode and encode, as the answer says them, off what the client measured."""
    with stand(bench) as made:
        seconds = bench.seconds(_SECONDS)
        seen = [
            send(made.plan(seconds=seconds, collect=True, seed=seed)) for seed in range(bench.runs)
        ]
        facts = made.facts()
    overheads = [_overheads(one) for one in seen]
    overhead = medians([spread(values) for values in overheads])
    content = {
        **facts,
        "overhead": "total at the client - decode - encode, in ms",
        "overhead_ms": overhead,
        "total_ms": medians([spread(one.latencies) for one in seen]),
        "failures": sum(one.failures for one in seen),
        "runs_overhead_ms": [spread(values) for values in overheads],
        "runs_total_ms": [spread(one.latencies) for one in seen],
    }
    checks = [
        Check("overhead p50", overhead["p50"], _P50_MS, "ms"),
        Check("overhead p99", overhead["p99"], _P99_MS, "ms"),
    ]
    series = {
        "overhead": [value for values in overheads for value in values],
        "whole request": [value for one in seen for value in one.latencies],
    }
    return Outcome(content, checks, [cumulative("latency", "One request at a time", series)])


def _overheads(seen: Seen) -> list[float]:
    start = seen.begun + seen.plan.warmup
    return [
        sample.ms - answer["timings_ms"]["decode"] - answer["timings_ms"]["encode"]
        for sample, answer in zip(seen.samples, seen.answers, strict=True)
        if answer is not None and sample.due >= start
    ]
