"""Three times saturation for a minute: what is answered, how fast the rest is refused, memory."""

from collections import Counter
from typing import Any

from benchmarks.serving.client import Sample, Seen, send
from benchmarks.serving.measure import Check, slope, spread
from benchmarks.serving.plots import over_time
from benchmarks.serving.processes import MemoryWatch
from benchmarks.serving.stand import Bench, Outcome, stand

_TIMES, _SECONDS, _SATURATION_SECONDS = 3.0, 60.0, 10.0
_GOODPUT, _REFUSAL_MS, _FLAT_MB = 0.9, 50.0, 10.0


def run(bench: Bench) -> Outcome:
    """Saturate, then send three times as much; saturate again to see that nothing stays."""
    with stand(bench) as made:
        before, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
        plan = made.plan(
            mode="open",
            rate=_TIMES * before.throughput,
            seconds=4.0 if bench.quick else _SECONDS,
            warmup=3.0,
        )
        with MemoryWatch(made.server) as memory:
            seen = send(plan)
        after, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
        facts = made.facts()
    refused = [sample.ms for sample in seen.with_status(503)]
    goodput = seen.throughput / before.throughput
    # The first seconds fill the queue and the records that wait to be written.
    settled = [
        (t, mb) for t, mb in zip(memory.seconds, memory.mb, strict=True) if t > plan.warmup
    ]
    grown = 60.0 * slope([t for t, _ in settled], [mb for _, mb in settled])
    content: dict[str, Any] = {
        **facts,
        "times_saturation": _TIMES,
        "saturation_per_second": before.throughput,
        "saturation_afterwards_per_second": after.throughput,
        "sent_per_second": len(seen.counted) / plan.seconds,
        "goodput_per_second": seen.throughput,
        "goodput": goodput,
        "statuses": dict(Counter(str(sample.status) for sample in seen.counted)),
        "answered_ms": spread(seen.latencies),
        "refused_ms": spread(refused),
        "refused_from_sent_ms": spread(
            [1000 * (sample.done - sample.sent) for sample in seen.with_status(503)]
        ),
        "generator_cores": seen.cores(),
        "rss_mb": memory.mb,
        "rss_mb_per_minute": grown,
    }
    checks = [
        Check("goodput / saturation", goodput, _GOODPUT, at_most=False),
        Check("refusal p99", spread(refused)["p99"], _REFUSAL_MS, "ms"),
        Check("memory growth", grown, _FLAT_MB, "MB/min"),
    ]
    series = {
        "decided": _per_second(seen, seen.with_status(200)),
        "refused": _per_second(seen, seen.with_status(503)),
        "RSS, MB": list(zip(memory.seconds, memory.mb, strict=True)),
    }
    title = f"Answers a second at {_TIMES:g} times saturation"
    return Outcome(content, checks, [over_time("answers", title, "a second; MB", series)])


def _per_second(seen: Seen, samples: list[Sample]) -> list[tuple[float, float]]:
    counts = Counter(int(sample.done - seen.begun) for sample in samples)
    end = int(seen.plan.warmup + seen.plan.seconds)
    return [(float(second), float(counts[second])) for second in range(1, end)]
