"""A thousand promotions under full load: nothing fails, and no answer is of two versions."""

import http.client
import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks.serving.client import Load, Sample, Seen
from benchmarks.serving.home import Line
from benchmarks.serving.measure import Check, spread
from benchmarks.serving.plots import cumulative
from benchmarks.serving.stand import Bench, Outcome, Stand, stand

_PROJECTS, _PROMOTIONS, _SECONDS = 8, 1000, 60.0
_TOLERANCE = 0.01  # a batch's size changes the rounding of its features

Reference = dict[tuple[str, int], tuple[str, float]]


class Promotion(NamedTuple):
    """A promotion: of which project, to which digest, when it was asked for and answered."""

    line: int
    digest: str
    asked: float
    answered: float
    status: int


def run(bench: Bench) -> Outcome:
    """Promote two versions of several projects in turn while clients ask all of them."""
    with stand(bench, lines=_PROJECTS, versions=2) as made:
        reference = _reference(made)
        warmup, seconds = 1.0, 3.0 if bench.quick else _SECONDS
        plan = made.plan(concurrency=made.concurrency, seconds=seconds, warmup=warmup, collect=True)
        load = Load(plan)
        time.sleep(warmup)
        promotions = _promote(made, _PROMOTIONS // (20 if bench.quick else 1), seconds)
        seen = load.result()
        facts, lines = made.facts(), made.home.lines
    found = _judge(seen, promotions, lines, reference)
    delays = _delays(seen, promotions, lines)
    failed = [one for one in promotions if one.status != 200]
    content: dict[str, Any] = {
        **facts,
        "promotions": len(promotions),
        "promotion_ms": spread([1000 * (one.answered - one.asked) for one in promotions]),
        "promotions_failed": len(failed),
        "answers": len(seen.samples),
        "throughput_per_second": seen.throughput,
        **found,
        "delay": "from a promotion's answer to the first answer by the new version, ms;"
        " promotions that none was asked after are left out",
        "delay_ms": spread(delays),
    }
    failures = found["failed"] + len(failed)
    checks = [
        Check("promotions", len(promotions), _PROMOTIONS, at_most=False),
        Check("failed", failures, 0),
        Check("mixed", found["mixed"], 0),
        Check("old version after the promotion's answer", found["stale"], 0),
    ]
    title = "From a promotion's answer to the first answer by the new version"
    return Outcome(content, checks, [cumulative("delay", title, {"promotions": delays})])


def _reference(made: Stand) -> Reference:
    """Return what each version says of each photograph when it is asked by its own id."""
    found: Reference = {}
    client = http.client.HTTPConnection("127.0.0.1", made.server.port, timeout=60)
    images = [path.read_bytes() for path in made.bench.photographs]
    headers = {**made.home.headers, "Content-Type": "image/jpeg"}
    for line in made.home.lines:
        for version in line.versions:
            for place, image in enumerate(images):
                client.request("POST", f"/v1/models/{version.id}/predict", image, headers)
                answer = json.loads(client.getresponse().read())
                found[version.digest, place] = (answer["label"], answer["probability"])
    client.close()
    return found


def _promote(made: Stand, count: int, seconds: float) -> list[Promotion]:
    """Promote at an even pace, the projects in turn, each time to the version that is not there."""
    client = http.client.HTTPConnection("127.0.0.1", made.server.port, timeout=60)
    headers = {**made.home.headers, "Content-Type": "application/json"}
    lines, begun, made_so_far = made.home.lines, time.monotonic(), []
    for number in range(count):
        delay = begun + 0.95 * seconds * number / count - time.monotonic()
        if delay > 0:
            time.sleep(delay)
        line = number % len(lines)
        place = (number // len(lines) + 1) % 2
        body = json.dumps({"version": place + 1})
        asked = time.monotonic()
        path = f"/v1/projects/{lines[line].project}/aliases/production"
        client.request("PUT", path, body, headers)
        response = client.getresponse()
        response.read()
        digest = lines[line].versions[place].digest
        made_so_far.append(Promotion(line, digest, asked, time.monotonic(), response.status))
    client.close()
    return made_so_far


def _judge(
    seen: Seen, promotions: Sequence[Promotion], lines: Sequence[Line], reference: Reference
) -> dict[str, int]:
    """Count answers that failed, that mix two versions, and that came from one that had gone."""
    failed = mixed = stale = 0
    for sample, answer in zip(seen.samples, seen.answers, strict=True):
        if sample.status != 200 or answer is None:
            failed += 1
        elif _is_mixed(sample, answer, lines[sample.path], reference):
            mixed += 1
        elif _is_stale(sample, answer["digest"], lines[sample.path], promotions):
            stale += 1
    return {"failed": failed, "mixed": mixed, "stale": stale}


def _is_mixed(sample: Sample, answer: dict[str, Any], line: Line, reference: Reference) -> bool:
    """Say whether labels and probabilities are not those of the version that is named."""
    version = next((one for one in line.versions if one.digest == answer["digest"]), None)
    if version is None or answer["labels"] != version.labels:
        return True
    label, probability = reference[version.digest, sample.body]
    close = abs(answer["probability"] - probability) <= _TOLERANCE
    return not close or (answer["label"] != label and probability > 0.5 + _TOLERANCE)


def _is_stale(sample: Sample, digest: str, line: Line, promotions: Sequence[Promotion]) -> bool:
    """Say whether the version had gone before the request was sent."""
    own = [one for one in promotions if one.line == sample.path and one.status == 200]
    before = [one for one in own if one.answered < sample.sent]
    possible = {before[-1].digest if before else line.versions[0].digest}
    possible |= {
        one.digest for one in own if one.answered >= sample.sent and one.asked < sample.done
    }
    return digest not in possible


def _delays(seen: Seen, promotions: Sequence[Promotion], lines: Sequence[Line]) -> list[float]:
    """Return milliseconds from each promotion's answer to the first answer by its version."""
    answered: list[list[tuple[float, str]]] = [[] for _ in lines]
    for sample, answer in zip(seen.samples, seen.answers, strict=True):
        if answer is not None:
            answered[sample.path].append((sample.done, answer["digest"]))
    delays = []
    for place, one in enumerate(promotions):
        after = [later.asked for later in promotions[place + 1 :] if later.line == one.line]
        until = after[0] if after else float("inf")
        first = [
            done
            for done, digest in answered[one.line]
            if digest == one.digest and one.answered <= done < until
        ]
        if first:
            delays.append(1000 * (min(first) - one.answered))
    return delays
