"""p99 under Poisson arrivals at 70 % of saturation, over a simulation of the same batching.

The simulation runs on two kinds of service times: those that the answers of the same run tell of
(decoders, encoder and HTTP share the cores, so that each takes longer than alone), and those of
the bare engine, measured alone.
"""

from typing import Any, NamedTuple

from benchmarks.serving.client import Seen, send
from benchmarks.serving.load import Plan, arrival_times
from benchmarks.serving.measure import Check, medians, spread
from benchmarks.serving.plots import cumulative
from benchmarks.serving.simulation import ServiceTimes, simulate
from benchmarks.serving.stand import Bench, Outcome, Stand, stand

_LOAD, _MOST = 0.7, 1.2
_SECONDS, _SATURATION_SECONDS, _SAMPLES = 20.0, 6.0, 15


class _Round(NamedTuple):
    figures: dict[str, float]
    measured: list[float]
    simulated: list[float]


def run(bench: Bench) -> Outcome:
    """Measure saturation, service times and the load in each round; simulate its arrivals."""
    with stand(bench) as made:
        rounds = [_round(made, seed) for seed in range(bench.runs)]
        facts = made.facts()
    middle = medians([one.figures for one in rounds])
    content: dict[str, Any] = {
        **facts,
        "load": _LOAD,
        "simulation": "the same arrivals; service times drawn from those of the run's own answers,"
        " and from those of the bare engine, each measured alone",
        "median": middle,
        "measured_ms": medians([spread(one.measured) for one in rounds]),
        "simulated_ms": medians([spread(one.simulated) for one in rounds]),
        "rounds": [one.figures for one in rounds],
    }
    series = {
        "measured": [value for one in rounds for value in one.measured],
        "simulated": [value for one in rounds for value in one.simulated],
    }
    title = f"Latency under Poisson arrivals at {_LOAD:.0%} of saturation"
    check = Check("p99 / simulated p99", middle["ratio"], _MOST)
    return Outcome(content, [check], [cumulative("latency", title, series)])


def _round(made: Stand, seed: int) -> _Round:
    bench, prediction = made.bench, made.settings.prediction
    saturated, _ = made.saturate(bench.seconds(_SATURATION_SECONDS))
    times = made.bare.service_times(prediction.max_batch, samples=4 if bench.quick else _SAMPLES)
    plan = made.plan(
        mode="open",
        arrivals="poisson",
        rate=_LOAD * saturated.throughput,
        seconds=bench.seconds(_SECONDS),
        collect=True,
        seed=seed,
    )
    seen = send(plan)
    workers = prediction.decode_workers
    simulated, alone = (
        simulated_ms(plan, kind, max_batch=prediction.max_batch, decode_workers=workers)
        for kind in (ServiceTimes.seen(_timings(seen), times), times)
    )
    measured, expected = spread(seen.latencies), spread(simulated)
    expected_alone = spread(alone)["p99"]
    figures = {
        "saturation_per_second": saturated.throughput,
        "rate": plan.rate,
        "failures": float(seen.failures),
        "sent_late_ms_p99": _late(seen),
        "measured_p50_ms": measured["p50"],
        "simulated_p50_ms": expected["p50"],
        "measured_p99_ms": measured["p99"],
        "simulated_p99_ms": expected["p99"],
        "ratio": measured["p99"] / expected["p99"],
        "simulated_alone_p99_ms": expected_alone,
        "ratio_alone": measured["p99"] / expected_alone,
    }
    return _Round(figures, seen.latencies, simulated)


def _timings(seen: Seen) -> list[tuple[float, float]]:
    """Return the seconds of decode and encode that each answer tells of."""
    told = [answer["timings_ms"] for answer in seen.answers if answer is not None]
    return [(one["decode"] / 1000, one["encode"] / 1000) for one in told]


def simulated_ms(
    plan: Plan, times: ServiceTimes, *, max_batch: int, decode_workers: int
) -> list[float]:
    """Return the simulated latencies of a plan's counted arrivals."""
    arrivals = arrival_times(plan)
    decode, encode = times.sampled(len(arrivals), plan.seed)
    seconds = simulate(arrivals, decode, encode, max_batch=max_batch, decode_workers=decode_workers)
    pairs = zip(arrivals, seconds, strict=True)
    return [1000 * value for due, value in pairs if due >= plan.warmup]


def _late(seen: Seen) -> float:
    return spread([1000 * (sample.sent - sample.due) for sample in seen.counted])["p99"]
