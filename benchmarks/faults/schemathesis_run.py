"""Requests that schemathesis derives from the OpenAPI document, with a key and without."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.faults.guarded import Guarded, guarded_gateway

_CONFIG = Path(__file__).with_name("schemathesis.toml")
# An answer that ends with the tuning, which no worker is here to end.
_ENDLESS = "/v1/tunings/{tuning}/events"
_REQUESTS, _SECONDS = 20_000, 150
_QUICK_SECONDS = 25
_MOST_ROUNDS = 12
_COUNTED = re.compile(r'^shotline_http_requests_total\{.*status="(\d+)"\} (\S+)$', re.M)
_DEADLINE_PASSED = "504"


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """Ask until enough was asked, each round with another seed; the gateway itself counts."""
    wanted = 0 if quick else _REQUESTS
    rounds: list[dict[str, Any]] = []
    # The limit on wrong keys would answer for the routes.
    with guarded_gateway(home, SHOTLINE_AUTH_FAILURES="1000000") as guarded:
        before = Counter(_statuses(guarded))  # asked while it started
        while not rounds or (len(rounds) < _MOST_ROUNDS and _total(guarded) < wanted):
            keyed = len(rounds) % 4 != 1  # the second, and every fourth after it, has no key
            rounds.append(_round(guarded, home, seed=len(rounds) + 1, keyed=keyed, quick=quick))
            report(f"{_total(guarded)} requests, {rounds[-1]['failures']} failures")
        if quick:
            rounds.append(_round(guarded, home, seed=2, keyed=False, quick=True))
        statuses = dict(Counter(_statuses(guarded)) - before)
        alive, peak = guarded.is_alive(), guarded.peak_mb()
        log = (home / "gateway.log").read_text()
    broken = {status: n for status, n in statuses.items() if status[0] == "5"}
    broken.pop(_DEADLINE_PASSED, None)
    return {
        "requests": sum(statuses.values()),
        "statuses": statuses,
        "peak_mb": round(peak),
        "rounds": rounds,
        "checks": {
            f"at least {wanted} requests": sum(statuses.values()) >= wanted,
            "no 5xx but a deadline that passed": not broken,
            "no answer against the document": not any(it["failures"] for it in rounds),
            "every round was completed": all(it["complete"] for it in rounds),
            "no error that nobody foresaw": "unforeseen_error" not in log,
            "the same process answers": alive,
        },
    }


def _round(guarded: Guarded, home: Path, *, seed: int, keyed: bool, quick: bool) -> dict[str, Any]:
    found = home / f"round-{seed}-{keyed}.json"
    seconds = _QUICK_SECONDS if quick else _SECONDS
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG), "run"),
        *(f"{guarded.server.address}/openapi.json", "--seed", str(seed)),
        # Not the examples of bodies, which are words for bytes: tests of their own send real ones.
        *(
            "--checks",
            "all",
            "--phases",
            "coverage,fuzzing,stateful",
            "--max-time",
            str(seconds),
            "--exclude-path",
            _ENDLESS,
        ),
        *("--report", "json", "--report-json-path", str(found), "--no-color"),
        *("--max-examples", "20" if quick else "100", "--generation-database", "none"),
    ]
    if keyed:
        command += ["--header", f"Authorization: Bearer {guarded.home.key}"]
    own = httpx2.get(
        f"{guarded.server.address}/v1/keys/current", headers=guarded.home.headers, timeout=30
    ).json()["id"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "SHOTLINE_OWN_KEY_ID": own, "PYTHONPATH": str(root)}
    ended = subprocess.run(  # noqa: S603 - our own program
        command, env=environment, cwd=home, capture_output=True, text=True, check=False
    )
    if not found.exists():
        raise RuntimeError(f"schemathesis: {ended.stdout[-2000:]} {ended.stderr[-2000:]}")
    (home / f"{found.stem}.txt").write_text(ended.stdout)
    return _summary(json.loads(found.read_text()), ended.stdout, seed=seed, keyed=keyed)


def _summary(said: Mapping[str, Any], text: str, *, seed: int, keyed: bool) -> dict[str, Any]:
    cases = said["test_cases"]
    summary = {
        "seed": seed,
        "key": keyed,
        "operations": said["operations"]["tested"],
        "cases": cases["generated"],
        "failures": cases["unique_failures"],
        "errors": cases["errored"],
        "complete": said["complete"] and said["operations"]["errored"] == 0,
        "seconds": round(said["running_time"], 1),
    }
    if summary["failures"] or not summary["complete"]:
        summary["said"] = text[-6000:]
    return summary


def _statuses(guarded: Guarded) -> dict[str, int]:
    text = httpx2.get(f"{guarded.server.address}/metrics", timeout=30).text
    counted: Counter[str] = Counter()
    for status, number in _COUNTED.findall(text):
        counted[status] += int(float(number))
    return dict(sorted(counted.items()))


def _total(guarded: Guarded) -> int:
    return sum(_statuses(guarded).values())
