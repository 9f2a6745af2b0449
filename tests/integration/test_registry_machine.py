"""The registry under any sequence of what people, workers and other gateways do to it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Drawn
from hypothesis.stateful import (
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from app.core.access import Principal
from app.core.clock import utc_now
from app.core.database import Database
from app.core.errors import Conflict, NotFound
from app.core.ids import new_id
from app.core.settings import GIB
from app.core.storage import LocalStorage
from app.core.tables import Alias, AliasMove, ModelVersion, Project
from app.predictions import repository as predictions
from app.predictions.engines.encoder import ImageEncoder
from app.predictions.metrics import PredictionMetrics
from app.predictions.resident import ModelCache
from app.projects import service as projects
from app.registry import service as registry
from app.registry.service import PRODUCTION
from models.artifact import Artifact
from tests.integration import tiny

SOMEONE = Principal(None, "someone", "admin")
ALIASES = st.sampled_from([PRODUCTION, "candidate"])
# Places in a list of versions, some of which are not there.
PLACES = st.integers(0, 4)


@dataclass
class Known:
    """What a project must hold: versions by number, what each alias named one after the other."""

    versions: dict[int, UUID] = field(default_factory=dict)
    last: int = 0
    served: dict[str, list[UUID]] = field(default_factory=dict)
    standing: dict[str, list[UUID]] = field(default_factory=dict)
    decided: set[UUID] = field(default_factory=set)

    def at(self, place: int) -> tuple[int, UUID | None]:
        """Return the number at a place, which nothing has where there is no such version."""
        numbers = sorted(self.versions)
        number = numbers[place] if place < len(numbers) else self.last + 1
        return number, self.versions.get(number)

    def named(self) -> set[UUID]:
        """Return what an alias names or ever named."""
        return {version for served in self.served.values() for version in served}

    def now(self, alias: str) -> UUID | None:
        """Return what the alias stands for."""
        served = self.served.get(alias)
        return served[-1] if served else None


class RegistryMachine(RuleBasedStateMachine):
    """Every step is checked against `Known`, and against what two gateways have in memory."""

    database: ClassVar[Database]
    storage: ClassVar[LocalStorage]
    artifacts: ClassVar[list[Artifact]]
    encoder: ClassVar[ImageEncoder]

    drawn = Drawn("drawn")

    @initialize()
    def start(self) -> None:
        self.known: dict[UUID, Known] = {}
        self.history: dict[UUID, list[UUID]] = {}
        self.gone: list[tuple[UUID, UUID]] = []
        self.eager, self.lazy = self._gateway(), self._gateway()

    def _gateway(self) -> ModelCache:
        metrics = PredictionMetrics(CollectorRegistry())
        cache = ModelCache(self.database, self.storage, lambda: self.encoder, GIB, metrics)
        cache.refresh()
        return cache

    def teardown(self) -> None:
        for project in [*self.known]:
            with self.database.unit_of_work() as session:
                projects.delete_project(session, SOMEONE, project)
        for cache in (self.eager, self.lazy):
            cache.stop()

    @rule(target=drawn, versions=st.integers(0, 3))
    def make_project(self, versions: int) -> Any:
        if len(self.known) == 3:
            return multiple()
        with self.database.unit_of_work() as session:
            made = projects.create_project(session, SOMEONE, name=f"p-{new_id()}")
        self.known[made.id] = Known()
        for _ in range(versions):
            self.tune(made.id)
        return made.id

    @rule(project=drawn)
    def tune(self, project: UUID) -> None:
        known = self.known[project]
        with self.database.unit_of_work() as session:
            artifact = self.artifacts[known.last % len(self.artifacts)]
            made = tiny.add_artifact(session, self.storage, project, artifact)
        # Numbers are the largest there is plus one.
        known.last = max(known.versions, default=0) + 1
        assert made.number == known.last
        known.versions[made.number] = made.id

    @rule(project=drawn, alias=ALIASES, place=PLACES)
    def promote(self, project: UUID, alias: str, place: int) -> None:
        known = self.known[project]
        number, version = known.at(place)
        if version is None:
            with pytest.raises(NotFound), self.database.unit_of_work() as session:
                registry.promote(session, SOMEONE, project, alias, number)
            return
        with self.database.unit_of_work() as session:
            registry.promote(session, SOMEONE, project, alias, number)
        if known.now(alias) != version:
            known.served.setdefault(alias, []).append(version)
            known.standing.setdefault(alias, []).append(version)

    @rule(project=drawn, alias=ALIASES)
    def roll_back(self, project: UUID, alias: str) -> None:
        known = self.known[project]
        standing = known.standing.get(alias, [])
        if len(standing) < 2:
            with pytest.raises(Conflict), self.database.unit_of_work() as session:
                registry.rollback(session, SOMEONE, project, alias)
            return
        with self.database.unit_of_work() as session:
            back = registry.rollback(session, SOMEONE, project, alias).version.id
        standing.pop()
        assert back == standing[-1]
        known.served[alias].append(back)

    @rule(project=drawn, places=st.lists(PLACES, min_size=2, max_size=3), back=st.booleans())
    def move_at_once(self, project: UUID, places: list[int], back: bool) -> None:
        """Whoever comes first: each sees what the one before it left."""
        known = self.known[project]
        numbers = [number for number, version in map(known.at, places) if version is not None]

        def promote(number: int) -> bool:
            with self.database.unit_of_work() as session:
                registry.promote(session, SOMEONE, project, PRODUCTION, number)
            return True

        def roll_back() -> bool:
            try:
                with self.database.unit_of_work() as session:
                    registry.rollback(session, SOMEONE, project, PRODUCTION)
            except Conflict:
                return False
            return True

        tasks: list[Callable[[], bool]] = [lambda n=n: promote(n) for n in numbers]
        tasks += [roll_back] if back else []
        with ThreadPoolExecutor(4) as threads:
            done = [future.result() for future in [threads.submit(task) for task in tasks]]
        before, after = self.history.get(project, []), self._moves(project)
        assert [move.id for move in after[: len(before)]] == before
        new = [move for move in after if move.alias == PRODUCTION and move.id not in before]
        assert len(new) <= len(done)
        assert sum(move.kind == "rollback" for move in new) == (back and done[-1])
        self._follow(known, new)

    def _follow(self, known: Known, new: list[AliasMove]) -> None:
        served = known.served.setdefault(PRODUCTION, [])
        standing = known.standing.setdefault(PRODUCTION, [])
        for move in new:
            assert move.from_version_id == (served[-1] if served else None)
            if move.kind == "promote":
                assert move.to_version_id != move.from_version_id
                standing.append(move.to_version_id)
            else:
                standing.pop()
                assert move.to_version_id == standing[-1]
            served.append(move.to_version_id)
        if not served:
            del known.served[PRODUCTION], known.standing[PRODUCTION]

    @rule(project=drawn, place=PLACES)
    def decide(self, project: UUID, place: int) -> None:
        """A prediction by the version is recorded."""
        number, version = self.known[project].at(place)
        if version is None:
            return
        row = {
            "id": new_id(), "project_id": project, "model_version_id": version,
            "model_number": number, "model_digest": "sha256:0", "decision": "ok", "label": "good",
            "probability": 1.0, "probabilities": [], "prediction_set": [], "timings_ms": {},
            "created_at": utc_now(),
        }  # fmt: skip
        with self.database.unit_of_work() as session:
            predictions.add_all(session, [row])
        self.known[project].decided.add(version)

    @rule(project=drawn, place=PLACES)
    def delete_version(self, project: UUID, place: int) -> None:
        known = self.known[project]
        number, version = known.at(place)
        if version is None:
            return
        if version in known.named() | known.decided:
            with pytest.raises(Conflict), self.database.unit_of_work() as session:
                registry.delete_version(session, SOMEONE, version)
            return
        with self.database.unit_of_work() as session:
            registry.delete_version(session, SOMEONE, version)
        del known.versions[number]
        known.last = max(known.versions, default=0)
        self.gone.append((project, version))

    @rule(project=consumes(drawn))
    def delete_project(self, project: UUID) -> None:
        with self.database.unit_of_work() as session:
            projects.delete_project(session, SOMEONE, project)
        self.gone += [(project, version) for version in self.known.pop(project).versions.values()]
        self.history.pop(project, None)

    @rule(project=drawn, place=PLACES)
    def ask_for_a_version(self, project: UUID, place: int) -> None:
        """A prediction by a version that may not be in production brings it into memory."""
        version = self.known[project].at(place)[1]
        if version is not None:
            assert self.lazy.fetch(version).result(30).id == version

    @rule()
    def look(self) -> None:
        """The gateway that looks seldom sees everything that happened since."""
        self._compare(self.lazy)

    @invariant()
    def a_gateway_serves_what_the_database_says(self) -> None:
        self._compare(self.eager)

    @invariant()
    def aliases_name_versions_of_their_project(self) -> None:
        with self.database.reading() as session:
            query = select(Alias, ModelVersion).outerjoin(
                ModelVersion, ModelVersion.id == Alias.version_id
            )
            found = [(alias, version) for alias, version in session.execute(query)]
        now = {(alias.project_id, alias.name): alias.version_id for alias, _ in found}
        assert all(version.project_id == alias.project_id for alias, version in found)
        assert now == {
            (project, alias): served[-1]
            for project, known in self.known.items()
            for alias, served in known.served.items()
        }

    @invariant()
    def histories_only_grow_and_lead_to_the_present(self) -> None:
        for project, known in self.known.items():
            moves = self._moves(project)
            ids, before = [move.id for move in moves], self.history.get(project, [])
            assert ids[: len(before)] == before
            self.history[project] = ids
            for alias, served in known.served.items():
                own = [move for move in moves if move.alias == alias]
                assert [move.to_version_id for move in own] == served
                assert [move.from_version_id for move in own] == [None, *served[:-1]]
                assert registry.standing_promotions(own) == known.standing[alias]

    @invariant()
    def versions_are_those_that_were_made_and_not_deleted(self) -> None:
        with self.database.reading() as session:
            rows = session.execute(
                select(ModelVersion.project_id, ModelVersion.number, ModelVersion.id)
            ).all()
            there = set(session.scalars(select(Project.id)))
        assert there == {*self.known}
        assert {tuple(row) for row in rows} == {
            (project, number, version)
            for project, known in self.known.items()
            for number, version in known.versions.items()
        }

    def _moves(self, project: UUID) -> list[AliasMove]:
        with self.database.reading() as session:
            query = select(AliasMove).where(AliasMove.project_id == project).order_by(AliasMove.id)
            return list(session.scalars(query))

    def _compare(self, cache: ModelCache) -> None:
        cache.refresh()
        for project, known in self.known.items():
            production = cache.project(project).production
            assert (None if production is None else production.id) == known.now(PRODUCTION)
            if production is not None:
                assert cache.load(production).result(30).id == production.id
        for project, version in self.gone:
            assert cache.resident(version) is None
            assert cache.knows(project) == (project in self.known)


@pytest.fixture
def machine(
    database: Database, storage: LocalStorage, artifacts: list[Artifact], encoder: ImageEncoder
) -> Iterator[type[RegistryMachine]]:
    class Bound(RegistryMachine):
        pass

    Bound.database, Bound.storage = database, storage
    Bound.artifacts, Bound.encoder = artifacts, encoder
    return Bound


def test_any_sequence_of_changes(machine: type[RegistryMachine], database: Database) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=20 if database.is_sqlite else 8,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
