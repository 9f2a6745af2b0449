"""Throughput of the gateway under many clients, over that of its encoder alone."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from benchmarks.serving.measure import Check, medians
from benchmarks.serving.plots import bars
from benchmarks.serving.stand import Bench, Outcome, Stand, stand
from benchmarks.vit import write_vit

_SECONDS, _LEAST = 6.0, 0.95


def run(bench: Bench) -> Outcome:
    """Measure both in turn, on the starter and on a larger tower whose image takes longer."""
    vit = write_vit(bench.work / "vit")
    found = {
        "starter": _compare(bench, {}, "home"),
        "ViT-B/32, random": _compare(bench, {"SHOTLINE_BACKBONE_SOURCE": vit}, "other"),
    }
    checks = [
        Check(
            f"throughput / bare encoder, {name}", result["median"]["ratio"], _LEAST, at_most=False
        )
        for name, result in found.items()
    ]
    rows = {
        f"{name}, {kind}": result["median"][key]
        for name, result in found.items()
        for kind, key in (
            ("gateway", "gateway_per_second"),
            ("gateway, every image kept", "keeping_per_second"),
            ("bare encoder", "bare_per_second"),
            ("bare, batches ahead", "bare_ahead_per_second"),
        )
    }
    title = "Images a second, the gateway under load and its encoder alone"
    content: dict[str, Any] = {
        **bench.facts(),
        "keeping": "every image is kept on the disk; else none is, as of most of a line's",
        "bare": "the decode workers decode a batch of the gateway's mean size, then it is encoded;"
        " ahead: they decode the next one while two are with the encoder, as in the gateway",
        "found": found,
    }
    return Outcome(content, checks, [bars("throughput", title, "images a second", rows)])


def _compare(
    bench: Bench, environment: Mapping[str, str], name: Literal["home", "other"]
) -> dict[str, Any]:
    """Return medians of rounds; who goes first changes with them."""
    with stand(bench, environment=environment, name=name) as made:
        _, batch = made.saturate(bench.seconds(_SECONDS))
        runs = [
            _round(made, max(1, round(batch)), first=number % 2 == 0)
            for number in range(bench.runs)
        ]
        return {**made.serving(), "median": medians(runs), "rounds": runs}


def _round(made: Stand, batch: int, *, first: bool) -> dict[str, float]:
    seconds = made.bench.seconds(_SECONDS)
    found = {} if first else _bare(made, batch, seconds)
    seen, mean_batch = made.saturate(seconds)
    made.keep_images("all")
    keeping, _ = made.saturate(seconds)
    made.keep_images("none")
    found = found or _bare(made, batch, seconds)
    return {
        "gateway_per_second": seen.throughput,
        "gateway_mean_batch": mean_batch,
        "keeping_per_second": keeping.throughput,
        "failures": float(seen.failures + keeping.failures),
        "generator_cores": seen.cores(),
        **found,
        "ratio": seen.throughput / found["bare_per_second"],
        "ratio_keeping": keeping.throughput / found["bare_per_second"],
        "ratio_ahead": seen.throughput / found["bare_ahead_per_second"],
    }


def _bare(made: Stand, batch: int, seconds: float) -> dict[str, float]:
    throughput = partial(
        made.bare.throughput,
        batch,
        seconds,
        decode_workers=made.settings.prediction.decode_workers,
    )
    return {
        "bare_batch": float(batch),
        "bare_per_second": throughput(ahead=False),
        "bare_ahead_per_second": throughput(ahead=True),
    }
