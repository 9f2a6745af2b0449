"""Workers and their children are killed at random moments; every tuning ends once, and right.

Each kill is a SIGKILL of one of: the child that tunes; the process that supervises it; Celery's
main process; all of a worker at once, as when its container is killed. Whatever of a worker ends is
started again, as Docker would. At the end, each tuning has to have succeeded, with one version,
whose digest is that of a tuning with the same seed in a process of its own, undisturbed.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.faults.stand import Processes, Redis, Stand, kill, stand
from tests.integration.services import wait_for

# On two cores some seconds of tuning and its folds, after as much for importing PyTorch.
RECIPE: Final = {"steps": 100, "warmup_steps": 5, "folds": 2, "threads": 1}
_SEEDS = 2
# Of a run: so many kills, for so many seconds at most.
_KILLS, _SECONDS = 40, 130.0
_PAUSE = (0.2, 3.0)  # seconds between two kills
_UNTIL_KEPT = 1 / 5  # of the kills wait until something was kept, so that tunings get on
_UNFINISHED = 2  # tunings that are queued or running while kills go on
_TARGETS = ("child", "supervisor", "main process", "whole worker")


@dataclass
class Storm:
    """Kills at random, and what they hit.

    Attributes:
        random: draws moments and victims.
        hits: how often each target was killed.
        phases: what the killed job was doing.
    """

    made: Stand
    random: random.Random
    hits: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        """Return how many there have been."""
        return sum(self.hits.values())

    def strike_at_random(self) -> None:
        """Kill something of some worker, where there is any of it."""
        worker = self.random.choice(self.made.workers)
        self.strike(worker.processes(), self.random.choices(_TARGETS, (4, 2, 1, 2))[0])

    def wait_for_something_kept(self, tunings: Sequence[str]) -> None:
        """Wait until one of the tunings has another checkpoint, or has ended."""
        before = self.made.standings(tunings)

        def kept() -> bool:
            self.made.look_after()
            return self.made.standings(tunings) != before

        wait_for(kept, "a checkpoint")

    def strike_at_work(self, target: str) -> None:
        """Kill something of a worker that has a job, as soon as one has."""

        def struck() -> bool:
            self.made.look_after()
            workers = [worker.processes() for worker in self.made.workers]
            busy = [found for found in workers if found.supervisors]
            return bool(busy) and self.strike(self.random.choice(busy), target)

        wait_for(struck, "a worker at work")

    def strike(self, found: Processes, target: str) -> bool:
        """Kill something of a worker; say whether it was still there."""
        victims = {
            "child": found.children[:1],
            "supervisor": found.supervisors[:1],
            "main process": [] if found.main is None else [found.main],
            "whole worker": found.all,
        }[target]
        working = bool(found.children)
        killed = [pid for pid in victims if kill(pid)]
        if killed:
            self.hits[target] += 1
            self.phases["at work" if working else "idle or starting"] += 1
        return bool(killed)


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """See the module's docstring."""
    seed = random.SystemRandom().randrange(2**32)
    redis = Redis(home / "redis")
    redis.start()
    try:
        # More attempts than kills: how many losses are the end is another question.
        more = {"SHOTLINE_TUNING_MAX_ATTEMPTS": "1000"}
        recipe = RECIPE | ({"steps": 40} if quick else {})
        with stand(
            home, redis.url, workers=2, recipe=recipe, environment=more, inside=True
        ) as made:
            made.look_after()
            report(f"workers are started; seed {seed}")
            storm = Storm(made, random.Random(seed))  # noqa: S311 - not for secrets
            asked = _breeze(storm) if quick else _blow(storm, report)
            made.wait_for_ends(list(asked))
            undisturbed = made.undisturbed(sorted(set(asked.values())))
            return {"seed": seed} | _found(made, storm, undisturbed, asked)
    finally:
        redis.kill()


def _breeze(storm: Storm) -> dict[str, int]:
    """Kill each target but one once, each time with another tuning to be done."""
    asked = dict[str, int]()
    for target in ("child", "supervisor", "whole worker"):
        asked[storm.made.tune(seed=0)] = 0
        storm.strike_at_work(target)
    return asked


def _blow(storm: Storm, report: Callable[[str], None]) -> dict[str, int]:
    """Kill while there is always work; return the tunings that were asked for, with their seeds."""
    made, asked = storm.made, dict[str, int]()
    give_up_at = time.monotonic() + _SECONDS
    unfinished: list[str] = []
    while storm.kills < _KILLS and time.monotonic() < give_up_at:
        unfinished = [
            tuning for tuning in unfinished if made.tuning(tuning)["state"] in ("queued", "running")
        ]
        while len(unfinished) < _UNFINISHED:
            seed = storm.random.randrange(_SEEDS)
            unfinished.append(made.tune(seed))
            asked[unfinished[-1]] = seed
        before = storm.kills
        if storm.random.random() < _UNTIL_KEPT:
            storm.wait_for_something_kept(unfinished)
        time.sleep(storm.random.uniform(*_PAUSE))
        storm.strike_at_random()
        made.look_after()
        if storm.kills > before and storm.kills % 10 == 0:
            report(f"{storm.kills} kills, {len(asked) - len(unfinished)} tunings done")
    report(f"{storm.kills} kills; {len(unfinished)} tunings left to be done")
    return asked


def _found(
    made: Stand, storm: Storm, undisturbed: dict[int, str], asked: dict[str, int]
) -> dict[str, Any]:
    shown = {tuning: made.tuning(tuning) for tuning in asked}
    versions = Counter(version["tuning"] for version in made.versions())
    digests = made.digests()
    attempts = [it["attempt"] for it in shown.values()]
    ended = Counter(it["state"] for it in shown.values())
    return {
        "kills": storm.kills,
        "killed": dict(storm.hits),
        "moments": dict(storm.phases),
        "starts_of_workers": sum(worker.starts for worker in made.workers),
        "processes_left_behind": sum(worker.left_behind() for worker in made.workers),
        "tunings": len(asked),
        "states": dict(ended),
        "attempts": {"most": max(attempts), "sum": sum(attempts)},
        "digests": undisturbed,
        "checks": {
            "every tuning succeeded": ended == {"succeeded": len(asked)},
            "each has one version": all(versions[tuning] == 1 for tuning in asked),
            "each has the digest of an undisturbed one": all(
                digests.get(tuning) == undisturbed[seed] for tuning, seed in asked.items()
            ),
            "some were killed in the midst": max(attempts) > 1,
        },
    }
