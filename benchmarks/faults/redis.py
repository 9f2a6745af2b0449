"""Redis is flushed, and killed with and without its append-only file; nothing is lost or doubled.

Tunings and a batch run and wait when it happens, and more are asked for before it is over. At the
end each tuning has one version with the digest of an undisturbed one, and each batch a result in
which every image stands once; nobody has started anything by hand.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.stand import Redis, Stand, stand
from tests.integration.services import wait_for

RECIPE: Final = {"steps": 40, "warmup_steps": 5, "folds": 2, "threads": 1}
AWAY, QUICK_AWAY, MINUTE = 5.0, 1.0, 60.0  # seconds without a server
_IMAGES, _QUICK_IMAGES = 12, 8
# Batches give way to tunings again and again; each time costs seconds on two cores.
_SECONDS = 230.0

Fault = Callable[[Redis, float], None]


def flushed(redis: Redis, _: float) -> None:
    """Everything that was queued, and whatever was delivered, is forgotten."""
    redis.flush()


def killed(redis: Redis, seconds: float) -> None:
    """Nothing comes back from the disk."""
    redis.keep(False)
    away(redis, seconds)


def killed_with_file(redis: Redis, seconds: float) -> None:
    """Everything comes back, also what was done in the meantime."""
    redis.keep(True)
    away(redis, seconds)


def away(redis: Redis, seconds: float) -> None:
    """Nobody listens for a while."""
    redis.kill()
    time.sleep(seconds)


def hung(redis: Redis, seconds: float) -> None:
    """Connections stay open, and nothing is answered for a while."""
    redis.hang()
    time.sleep(seconds)


FAULTS: Final[Mapping[str, Fault]] = {
    "flushed": flushed,
    "killed, with nothing kept": killed,
    "killed, with an append-only file": killed_with_file,
}


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """See the module's docstring."""
    faults = {"killed": killed} if quick else FAULTS  # which is a flush, and more
    return try_faults(home, faults, QUICK_AWAY if quick else AWAY, report, quick=quick)


def try_faults(
    home: Path,
    faults: Mapping[str, Fault],
    seconds: float,
    report: Callable[[str], None],
    *,
    quick: bool,
) -> dict[str, Any]:
    """Bring one fault after the other about, each under work; return what was found."""
    with _redis(home) as redis:
        # However busy the machine, no worker is given up for lost: what is done twice is Redis's.
        environment = {"SHOTLINE_TUNING_LEASE_SECONDS": "30"}
        if quick:
            environment["SHOTLINE_TUNING_RESEND_SECONDS"] = "3"
        with stand(
            home, redis.url, workers=1 if quick else 2, recipe=RECIPE, environment=environment
        ) as made:
            made.look_after()
            made.wait_for_ends([made.tune(seed=0)])
            made.promote(1)
            report("one version is in production")
            (digest,) = made.undisturbed([0]).values()
            rounds = []
            for name, fault in faults.items():
                rounds.append(_round(made, redis, fault, seconds, quick=quick))
                report(f"{name}: {rounds[-1]}")
    return {
        "seconds_away": seconds,
        "rounds": dict(zip(faults, rounds, strict=True)),
        "checks": {
            f"{name}: {check}": held
            for name, found in zip(faults, rounds, strict=True)
            for check, held in _checks(found, digest).items()
        },
    }


@contextmanager
def _redis(home: Path) -> Iterator[Redis]:
    redis = Redis(home / "redis")
    redis.start()
    try:
        yield redis
    finally:
        redis.kill()


def _round(
    made: Stand, redis: Redis, fault: Fault, seconds: float, *, quick: bool
) -> dict[str, Any]:
    """Have work under way and waiting, bring the fault about, ask for more, and wait."""
    images = _QUICK_IMAGES if quick else _IMAGES
    tunings = [made.tune(seed=0) for _ in range(1 if quick else 2)]
    batches = [made.decide(images)]
    wait_for(lambda: made.tuning(tunings[0])["state"] == "running", "a running tuning")
    fault(redis, seconds)
    tunings.append(made.tune(seed=0))
    batches.append(made.decide(images))
    redis.bring_back()
    back_at = time.monotonic()
    made.wait_for_ends(tunings, batches, seconds=_SECONDS)
    versions = [version for version in made.versions() if version["tuning"] in tunings]
    return {
        "tunings": [made.tuning(each)["state"] for each in tunings],
        "batches": [made.batch(each)["state"] for each in batches],
        "attempts": [made.tuning(each)["attempt"] for each in tunings],
        "versions": len(versions),
        "digests": sorted({version["digest"] for version in versions}),
        "images": [made.places(each) == list(range(images)) for each in batches],
        "seconds_until_all_was_done": round(time.monotonic() - back_at, 1),
        "starts_of_workers": sum(worker.starts for worker in made.workers),
    }


def _checks(found: dict[str, Any], digest: str) -> dict[str, bool]:
    return {
        "all succeeded": {*found["tunings"], *found["batches"]} == {"succeeded"},
        "one version of each tuning": found["versions"] == len(found["tunings"]),
        "with the digest of an undisturbed one": found["digests"] == [digest],
        "each image of a batch once": all(found["images"]),
        "no work was done twice": set(found["attempts"]) == {1},
    }
