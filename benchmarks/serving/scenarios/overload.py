"""Three times saturation for a minute: what is answered, how fast the rest is refused, memory."""

from collections import Counter
from typing import Any, NamedTuple

from benchmarks.serving.client import Sample, Seen, send
from benchmarks.serving.measure import Check, medians, slope, spread
from benchmarks.serving.plots import over_time
from benchmarks.serving.processes import MemoryWatch
from benchmarks.serving.stand import Bench, Outcome, Stand, stand

_TIMES, _SECONDS, _SATURATION_SECONDS = 3.0, 60.0, 10.0
_GOODPUT, _REFUSAL_MS, _FLAT_MB = 0.9, 50.0, 10.0


class _Round(NamedTuple):
    """A minute of overload between two saturations; `memory` is (seconds, MB)."""

    figures: dict[str, float]
    seen: Seen
    memory: list[tuple[float, float]]


def run(bench: Bench) -> Outcome:
    """Saturate, send three times as much, saturate again to see that nothing stays."""
    with stand(bench) as made:
        rounds = [_round(made, seed) for seed in range(bench.runs)]
        facts = made.facts()
    middle = medians([one.figures for one in rounds])
    seen, memory = rounds[0].seen, rounds[0].memory
    content: dict[str, Any] = {
        **facts,
        "times_saturation": _TIMES,
        "goodput": "answers of 200 a second over the mean of the saturations before and after",
        "median": middle,
        "rounds": [one.figures for one in rounds],
        "statuses": [dict(Counter(str(s.status) for s in one.seen.counted)) for one in rounds],
        "rss_mb": [[mb for _, mb in one.memory] for one in rounds],
    }
    checks = [
        Check("goodput / saturation", middle["goodput"], _GOODPUT, at_most=False),
        Check("refusal p99", middle["refused_p99_ms"], _REFUSAL_MS, "ms"),
        Check("memory growth", middle["rss_mb_per_minute"], _FLAT_MB, "MB/min"),
    ]
    series = {
        "decided": _per_second(seen, seen.with_status(200)),
        "refused": _per_second(seen, seen.with_status(503)),
    }
    when = f"at {_TIMES:g} times saturation"
    figures = [
        over_time("answers", f"Answers {when}", "a second", series),
        over_time("memory", f"Resident memory {when}", "MB", {"gateway": memory}),
    ]
    return Outcome(content, checks, figures)


def _round(made: Stand, seed: int) -> _Round:
    bench = made.bench
    before, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
    plan = made.plan(
        mode="open",
        arrivals="poisson",
        rate=_TIMES * before.throughput,
        seconds=4.0 if bench.quick else _SECONDS,
        warmup=3.0,  # fills the queue
        seed=seed,
    )
    with MemoryWatch(made.server) as watch:
        seen = send(plan)
    after, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
    memory = list(zip(watch.seconds, watch.mb, strict=True))
    settled = [(time, mb) for time, mb in memory if time > plan.warmup]
    refused = seen.with_status(503)
    return _Round(
        {
            "saturation_per_second": before.throughput,
            "saturation_afterwards_per_second": after.throughput,
            "sent_per_second": len(seen.counted) / plan.seconds,
            "goodput_per_second": seen.throughput,
            "goodput": seen.throughput / ((before.throughput + after.throughput) / 2),
            "answered_p99_ms": spread(seen.latencies)["p99"],
            "refused_p50_ms": spread([sample.ms for sample in refused])["p50"],
            "refused_p99_ms": spread([sample.ms for sample in refused])["p99"],
            "refused_from_sent_p99_ms": spread([1000 * (s.done - s.sent) for s in refused])["p99"],
            "neither": float(seen.failures - len(refused)),
            "generator_cores": seen.cores(),
            "rss_mb_per_minute": 60 * slope([t for t, _ in settled], [mb for _, mb in settled]),
        },
        seen,
        memory,
    )


def _per_second(seen: Seen, samples: list[Sample]) -> list[tuple[float, float]]:
    counts = Counter(int(sample.done - seen.begun) for sample in samples)
    end = int(seen.plan.warmup + seen.plan.seconds)
    return [(float(second), float(counts[second])) for second in range(1, end)]
