"""Searches for a recipe: over HTTP, in one process, and on two real workers."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update
from starlette.testclient import TestClient

from app.core.database import Database, database_now
from app.core.jobs import TRIALS, TUNINGS, Failure
from app.core.queue import TRIAL, CeleryQueue, InMemoryQueue
from app.core.reaper import make_reaper, reap
from app.core.settings import QueueSettings, Settings, TuningSettings
from app.core.storage import LocalStorage
from app.core.tables import SearchTrial
from app.searches.states import lead_owner
from models.search.budget import SearchBudget
from models.search.space import params_of, space_of
from tests.integration import services, tiny
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.test_tunings import claim, events_of, make_project, row_of
from tests.integration.test_worker import child_of
from worker import exit_codes
from worker.trial_run import TrialRun
from worker.tuning_run import TuningRun

# What is not searched, so that a trial is done in a moment.
FIXED = tiny.RECIPE | {"n_ctx": 4, "method": "kgcoop"}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with services.redis_server(tmp_path_factory.mktemp("r")) as url:
        yield url


@pytest.fixture
def settings(settings: Settings, redis_url: str, tmp_path: Path) -> Settings:
    tuning = TuningSettings(lease_seconds=3, heartbeat_seconds=0.5, reap_seconds=0.5)
    queue = QueueSettings(url=SecretStr(redis_url), name=f"q{tmp_path.name}")
    return settings.model_copy(update={"tuning": tuning, "queue": queue})


@pytest.fixture
def environment(settings: Settings, redis_url: str) -> dict[str, str]:
    name = {"SHOTLINE_QUEUE_NAME": settings.queue.name}
    return services.environment_of(settings, redis_url) | name


def search(client: TestClient, project: UUID, **budget: object) -> UUID:
    body = {"recipe": "search", "search": {"fixed": FIXED} | budget}
    response = client.post(f"/v1/projects/{project}/tunings", json=body)
    assert response.status_code == 202, response.text
    return UUID(response.json()["id"])


def shown(client: TestClient, tuning: UUID) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/v1/tunings/{tuning}").json()
    return answer


def told(client: TestClient, tuning: UUID) -> dict[str, Any]:
    answer: dict[str, Any] = client.get(f"/v1/tunings/{tuning}/search").json()
    return answer


def run(
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    tuning: UUID,
) -> int:
    lease = claim(database, tuning)
    assert lease is not None
    return TuningRun(lease, settings, database, storage).run()


NO_BUDGETS: list[tuple[dict[str, object], str, str]] = [
    ({"minutes": 0}, "search.minutes", "0 minutes"),
    ({"minutes": -5}, "search.minutes", "-5 minutes"),
    ({"minutes": 1e9}, "search.minutes", "1e+09 minutes"),
    ({"minutes": 290}, "search.minutes", "270"),
    ({"trials": 0}, "search.trials", "0 trials"),
    ({"trials": 10**30}, "search.trials", "1000"),
    ({"fixed": {"n_ctx": 999}}, "n_ctx", "999"),
    ({"fixed": {"colour": "red"}}, "colour", "colour"),
    ({"fixed": {"method": "maple"}}, "method", "maple"),
    ({"fixed": dict(params_of(SearchBudget().auto, space_of(())))}, "search.fixed", "fixed"),
]


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_budget_that_is_none(client: TestClient) -> None:
    project = make_project(client, "good", "bad")
    address = f"/v1/projects/{project}/tunings"
    for budget, field, name in NO_BUDGETS:
        response = client.post(address, json={"recipe": "search", "search": budget})
        assert_problem(response, 422, "bad-recipe", names=name, field=field)
    assert client.get(address).json()["items"] == []


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_search_that_cannot_be_asked_for(client: TestClient, queue: InMemoryQueue) -> None:
    project = make_project(client, "good", "bad")
    address = f"/v1/projects/{project}/tunings"
    for body in ({"search": {"minutes": 1}}, {"recipe": {"steps": 9}, "search": {"minutes": 1}}):
        assert_problem(client.post(address, json=body), 422, "bad-recipe", field="search")
    unknown = client.post(address, json={"recipe": "search", "search": {"hours": 1}})
    assert unknown.status_code == 422
    assert "hours" in unknown.text
    assert client.post(address, json={"recipe": "serach"}).status_code == 422
    assert queue.sent == []
    plain = client.post(address, json={"recipe": {"steps": 9, "warmup_steps": 1}}).json()
    assert (plain["recipe_from"], plain["search"]) == ("given", None)
    assert "steps" in plain["recipe_reason"]
    assert client.post(address, json={}).json()["recipe_from"] == "auto"
    assert_problem(client.get(f"/v1/tunings/{plain['id']}/search"), 404, "not-found")


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_one_training_image_in_a_class_is_too_few_to_search(client: TestClient) -> None:
    """A tuning that has a holdout can do with one; a cross-validation cannot."""
    project = make_project(client, "good")
    client.post(f"/v1/projects/{project}/classes", json={"name": "bad", "prompt_name": "bad"})
    for label, place, split, count in (
        ("good", 0, "holdout", 5),
        ("bad", 1, "holdout", 5),
        ("bad", 1, "train", 1),
    ):
        first = 10 if split == "holdout" else 30
        files = [
            ("images", (f"{n}.png", tiny.photograph(place, first + n), "image/png"))
            for n in range(count)
        ]
        data = {"label": label, "split": split}
        sent = client.post(f"/v1/projects/{project}/images", data=data, files=files)
        assert sent.status_code == 200, sent.text
    address = f"/v1/projects/{project}/tunings"
    assert client.post(address, json={"recipe": tiny.RECIPE}).status_code == 202
    refused = client.post(address, json={"recipe": "search"})
    assert_problem(refused, 422, "bad-dataset", names=("'bad'", "1 training image"), field="bad")


def test_a_search_in_one_process(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
) -> None:
    project = make_project(client, "good", "傷", images=4)
    tuning = search(client, project, trials=4)
    waiting = shown(client, tuning)
    assert waiting["recipe_from"] == "search"
    assert waiting["search"] == {
        "minutes": 10.0, "trials": 4, "spent_seconds": 0.0, "choice": None,
    }  # fmt: skip
    assert told(client, tuning)["trials"] == []
    assert run(database, storage, settings, tuning) == exit_codes.DONE

    done, found = shown(client, tuning), told(client, tuning)
    assert done["state"] == "succeeded"
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2, 3]
    assert {trial["state"] for trial in found["trials"]} <= {"complete", "pruned"}
    assert found["trials"][0]["params"]["fusion"] == "posterior"
    assert (found["n_images"], found["n_folds"]) == (8, 2)
    assert found["choice"] == done["search"]["choice"]
    assert done["recipe_reason"] == found["choice"]["reason"]
    curve = [trial["best_so_far"] for trial in found["trials"]]
    assert curve == sorted(curve)
    # The version says the same, and answers with the recipe that was taken.
    model = client.get(f"/v1/models/{done['model']['id']}/report").json()
    assert model["metrics"]["search"] == found
    taken = found["trials"][found["choice"]["number"]]["params"]
    assert taken.items() <= done["recipe"].items()
    with database.reading() as session:
        assert len(session.scalars(select(SearchTrial)).all()) == 4
    # A message of a trial that whoever led the search took itself finds nothing to do.
    with database.unit_of_work() as session:
        first = session.scalars(select(SearchTrial.id)).first()
        assert first is not None
        assert TRIALS.claim(session, first, owner="late", seconds=1) is None


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_search_goes_on_after_the_choice_and_after_a_loss(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    queue: InMemoryQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process ends between the choice and the version: nothing is searched again."""
    project = make_project(client, "good", "bad", images=4)
    tuning = search(client, project, trials=3)
    # An earlier attempt left a trial half done, and another one that fails for good.
    with database.unit_of_work() as session:
        auto = SearchBudget.read({"fixed": FIXED}).auto
        params = dict(params_of(auto, space_of(FIXED)))
        for number in (0, 1):
            session.add(
                SearchTrial(
                    project_id=project, tuning_id=tuning, number=number, params=params,
                    queued_at=database_now(),
                )
            )  # fmt: skip
        session.flush()
        ids = {row.number: row.id for row in session.scalars(select(SearchTrial))}
        assert TRIALS.claim(session, ids[0], owner=f"tuning {tuning}", seconds=3600)
        session.execute(
            update(SearchTrial).where(SearchTrial.number == 1).values(params=params | {"alpha": -1})
        )

    def broken(*_: object) -> None:
        raise MemoryError

    lease = claim(database, tuning)
    assert lease is not None
    first = TuningRun(lease, settings, database, storage)
    monkeypatch.setattr(first, "_tune", broken)
    # The gateway's reaper finds the lost trial, whose lease was not to end for an hour.
    stop = _reaping(database, queue)
    try:
        assert first.run() == exit_codes.DONE
    finally:
        stop()
    assert row_of(database, tuning).state == "failed"
    found = told(client, tuning)
    states = [trial["state"] for trial in found["trials"]]
    assert states[0] == "complete"
    assert states[1] == "failed"
    assert "alpha" in found["trials"][1]["problem"]
    assert found["choice"] is not None
    with database.unit_of_work() as session:
        trial = session.get_one(SearchTrial, ids[0])
        assert (trial.attempt, trial.losses) == (2, 1)
        row = session.get_one(type(row_of(database, tuning)), tuning)
        row.state, row.failure, row.finished_at = "queued", None, None
    assert run(database, storage, settings, tuning) == exit_codes.DONE
    assert shown(client, tuning)["state"] == "succeeded"
    assert told(client, tuning) == found


def _reaping(database: Database, queue: InMemoryQueue) -> Callable[[], None]:
    reaper = make_reaper(database, queue, TuningSettings(reap_seconds=0.1))
    reaper.start()
    return reaper.stop


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_trial_whose_search_is_over_withdraws(
    client: TestClient,
    database: Database,
    storage: LocalStorage,
    settings: Settings,
    queue: InMemoryQueue,
) -> None:
    project = make_project(client, "good", "bad")
    tuning = search(client, project)
    with database.unit_of_work() as session:
        trial = SearchTrial(project_id=project, tuning_id=tuning, number=0, params={})
        session.add(trial)
        session.flush()
        lease = TRIALS.claim(session, trial.id, owner="another worker", seconds=30)
    failing = claim(database, tuning)
    assert failing is not None
    assert lease is not None
    with database.unit_of_work() as session:
        assert TUNINGS.fail(session, failing, Failure(problem="It broke.", fix="Mend it."))
    assert TrialRun(lease, settings, database, storage).run() == exit_codes.DONE
    assert told(client, tuning)["trials"][0]["state"] == "stopped"
    assert client.delete(f"/v1/projects/{project}").status_code == 204


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_cancelling_a_tuning_cancels_its_trials(
    client: TestClient, database: Database, queue: InMemoryQueue
) -> None:
    project = make_project(client, "good", "bad")
    tuning = search(client, project)
    with database.unit_of_work() as session:
        for number in (0, 1):
            session.add(SearchTrial(project_id=project, tuning_id=tuning, number=number, params={}))
        session.flush()
        first = session.scalars(select(SearchTrial.id).order_by(SearchTrial.number)).first()
        assert first is not None
        lease = TRIALS.claim(session, first, owner="a worker", seconds=30)
    client.post(f"/v1/tunings/{tuning}/cancel")
    assert lease is not None
    with database.unit_of_work() as session:
        assert TRIALS.renew(session, lease, seconds=1) == "cancel"
        states = {row.number: row.state for row in session.scalars(select(SearchTrial))}
    assert states == {0: "running", 1: "cancelled"}
    assert [trial["state"] for trial in told(client, tuning)["trials"]] == ["stopped", "stopped"]
    reap(database, queue, TuningSettings())
    assert TRIAL not in {task for task, _ in queue.sent}


class Workers:
    """Two workers on one queue, each with a log of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.logs = [folder / "a.log", folder / "b.log"]
        self._environment, self._stack = environment, ExitStack()
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Workers":
        for log in self.logs:
            started = services.worker(self._environment, log)
            self.processes.append(self._stack.enter_context(started))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def trials(self, place: int) -> list[int]:
        """The numbers of the trials that one of them did."""
        lines = [
            json.loads(it) for it in self.logs[place].read_text().splitlines() if it[:1] == "{"
        ]
        return [line["trial"] for line in lines if line.get("event") == "trial"]

    def leader(self, tuning: UUID) -> int | None:
        return next((n for n, it in enumerate(self.processes) if child_of(it, tuning)), None)


@pytest.fixture
def queue(settings: Settings, request: pytest.FixtureRequest) -> Any:
    """The gateway's queue: a real one where there are workers."""
    if "workers" not in request.fixturenames:
        return InMemoryQueue()
    return CeleryQueue(settings.queue)


@pytest.fixture
def workers(environment: dict[str, str], tmp_path: Path) -> Iterator[Workers]:
    with Workers(environment, tmp_path) as both:
        yield both


def running(client: TestClient, tuning: UUID) -> int:
    trials = told(client, tuning)["trials"]
    return sum(trial["state"] == "running" for trial in trials)


def _said_running(client: TestClient, tuning: UUID) -> int:
    progress = shown(client, tuning)["progress"]
    assert progress["phase"] == "search"
    count: int = progress["search"]["running"]
    return count


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_search_on_two_workers(
    client: TestClient, database: Database, storage: LocalStorage, workers: Workers
) -> None:
    """Both try recipes; cancel ends both; the death of the one that leads loses nothing."""
    project = make_project(client, "good", "bad", images=4)
    endless = search(client, project, fixed=FIXED | {"steps": 100_000})
    wait_for(lambda: running(client, endless) == 2, "a trial on each worker")
    wait_for(lambda: _said_running(client, endless) == 2, "progress that says so")
    client.post(f"/v1/tunings/{endless}/cancel")

    def all_ended() -> bool:
        with database.reading() as session:
            states = set(session.scalars(select(SearchTrial.state)))
        return shown(client, endless)["state"] == "cancelled" and states == {"cancelled"}

    wait_for(all_ended, "cancellation on both", seconds=2)

    tuning = search(client, project, trials=5, fixed=FIXED | {"steps": 600})
    wait_for(lambda: workers.leader(tuning) is not None, "who leads")
    leader = workers.leader(tuning)
    assert leader is not None

    def both_are_in_a_trial() -> bool:
        with database.reading() as session:
            owners = select(SearchTrial.lease_owner).where(SearchTrial.state == "running")
            found = session.scalars(owners).all()
        return len(found) == 2 and lead_owner(tuning) in found

    # Before the other one has ended its first: its process starts while this one does several.
    wait_for(lambda: workers.trials(leader) and both_are_in_a_trial(), "a trial on each worker")
    for pid in [
        workers.processes[leader].pid,
        *services.descendants(workers.processes[leader].pid),
    ]:
        services.kill(pid)
    *_, (_, kind, last) = events_of(client.get(f"/v1/tunings/{tuning}/events").text)
    assert (kind, last["state"], last["attempt"]) == ("end", "succeeded", 2)
    found = told(client, tuning)
    assert [trial["number"] for trial in found["trials"]] == list(range(5))
    assert {trial["state"] for trial in found["trials"]} <= {"complete", "pruned"}
    with database.reading() as session:
        query = select(SearchTrial.attempt).where(SearchTrial.tuning_id == tuning)
        assert max(session.scalars(query)) == 2
    assert workers.trials(0)
    assert workers.trials(1)
    version = client.get(f"/v1/models/{last['model']['id']}").json()
    assert version["version"] == 1
    row = row_of(database, tuning)
    assert row.recipe == last["recipe"]
    artifact = client.get(f"/v1/models/{last['model']['id']}/report").json()
    assert artifact["metrics"]["search"]["choice"] == found["choice"]
