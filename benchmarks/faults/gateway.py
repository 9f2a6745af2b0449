"""The gateway is killed at random moments of uploads, promotions and predictions, on SQLite.

Each time five clients are busy with it. With the gateway dead, what they were answered is compared
with what the database holds; at the end also with what the next gateway lists.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

import httpx2
from sqlalchemy import select

from app.core.tables import Alias, AliasMove, Image, PredictionRecord
from app.registry.service import standing_promotions
from benchmarks.faults.__main__ import Report
from benchmarks.faults.stage import PNG, PRODUCTION, Box, Gateway, Line, faults, make_box
from tests.integration import tiny
from tests.integration.files import zip_of

# Of one run; several make a hundred.
_KILLS, _QUICK_KILLS = 25, 3
# Between the clients' start and the kill: some tens of requests.
_LONGEST = 1.0
_MANY = 500


@dataclass
class Sent:
    """An upload: what it holds, and whether it was answered."""

    shas: list[str]
    answered: bool = False


@dataclass
class Log:
    """What the clients sent, and what they were answered.

    Attributes:
        uploads: in no order.
        moves: the reasons given with moves of the alias, in their order, and whether answered.
        predictions: those of this gateway's life, and when they were answered.
        replies: how often each status came for each kind of request.
        wrong: what should never be answered.
    """

    uploads: list[Sent] = field(default_factory=list)
    moves: dict[str, bool] = field(default_factory=dict)
    predictions: dict[str, float] = field(default_factory=dict)
    replies: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def note(self, kind: str, response: httpx2.Response) -> bool:
        """Count an answer; say whether it is one of success."""
        self.replies[f"{kind} {response.status_code}"] += 1
        if response.status_code >= 300:
            self.wrong.append(f"{kind}: {response.text[:300]}")
        return response.status_code < 300


class Clients:
    """Five clients, each with one request under way until the gateway is gone."""

    def __init__(self, box: Box, uploads: str, line: Line, address: str, log: Log) -> None:
        self._box, self._uploads, self._line = box, uploads, line
        self._address, self._log = address, log
        self._number, self._counting = 0, threading.Lock()
        self._last: tuple[str, str] | None = None  # a key and the prediction it was answered by
        self._unsure: str | None = None  # a key whose answer never came

    def run(self) -> None:
        """Be busy until the connection breaks, each of them."""
        kinds = (self._upload_one, self._upload_zip, self._move, self._predict, self._predict_once)
        with ThreadPoolExecutor(len(kinds)) as threads:
            for future in [threads.submit(self._busy, kind) for kind in kinds]:
                future.result()

    def _busy(self, act: Any) -> None:
        with self._box.client(self._address) as client:
            while True:
                try:
                    act(client)
                except httpx2.TransportError:
                    return

    def _next(self) -> int:
        with self._counting:
            self._number += 1
            return self._number

    def _upload_one(self, client: httpx2.Client) -> None:
        data = tiny.photograph(0, self._next(), 64)
        self._upload(client, [data], files=[("files", ("a.png", data))], data={"label": "good"})

    def _upload_zip(self, client: httpx2.Client) -> None:
        start = [self._next() for _ in range(8)]
        photographs = [tiny.photograph(1, number, 64) for number in start]
        names = {f"part {n % 4}/{n}.png": data for n, data in zip(start, photographs, strict=True)}
        self._upload(client, photographs, files={"archive": ("a.zip", zip_of(names))})

    def _upload(self, client: httpx2.Client, photographs: list[bytes], **body: Any) -> None:
        sent = Sent([sha256(data).hexdigest() for data in photographs])
        self._log.uploads.append(sent)
        response = client.post(f"{self._uploads}/images", **body)
        sent.answered = self._log.note("upload", response)

    def _move(self, client: httpx2.Client) -> None:
        (alias,) = client.get(f"{self._line.path}/aliases").json()
        reason, number = f"move {self._next()}", random.randint(1, self._line.versions - 1)  # noqa: S311
        self._log.moves[reason] = False
        if random.random() < 0.7:  # noqa: S311 - else there is nothing left to roll back
            other = (alias["version"] + number - 1) % self._line.versions + 1
            response = client.put(
                f"{self._line.path}/aliases/{PRODUCTION}", json={"version": other, "reason": reason}
            )
        else:
            response = client.post(f"{self._line.path}/rollback", json={"reason": reason})
        if response.status_code == 409:  # nothing came before
            self._log.replies["move 409"] += 1
            del self._log.moves[reason]
        else:
            self._log.moves[reason] = self._log.note("move", response)

    def _predict(self, client: httpx2.Client) -> None:
        self._ask(client, self._next(), PNG)

    def _ask(self, client: httpx2.Client, number: int, headers: dict[str, str]) -> str | None:
        response = client.post(
            f"{self._line.path}/predict",
            content=tiny.photograph(number % 3, number % 50),
            headers=headers,
        )
        if not self._log.note("prediction", response):
            return None
        found: str = response.json()["prediction_id"]
        if "idempotent-replayed" not in response.headers:
            self._log.predictions[found] = time.monotonic()
        return found

    def _predict_once(self, client: httpx2.Client) -> None:
        """Under a key; first the two of before the kill: one must be replayed, one must be free."""
        if self._last is not None:
            key, before = self._last
            self._last = None
            again = self._ask(client, int(key), PNG | {"Idempotency-Key": key})
            if again != before:
                self._log.wrong.append(f"{before} was answered again as {again}")
        if self._unsure is None:
            self._unsure = str(self._next())
        found = self._ask(client, int(self._unsure), PNG | {"Idempotency-Key": self._unsure})
        if found is not None:
            self._last, self._unsure = (self._unsure, found), None


@dataclass
class Tally:
    """What was found while the gateway was dead."""

    lost_uploads: int = 0
    half_uploads: int = 0
    whole_though_unanswered: int = 0
    lost_moves: int = 0
    moves_though_unanswered: int = 0
    histories_broken: int = 0
    predictions: int = 0
    records_lost: int = 0
    oldest_lost_seconds: float = 0.0


def run(home: Path, *, quick: bool, report: Report) -> dict[str, Any]:
    """See `benchmarks.faults.__main__.Scenario`; on SQLite."""
    return killed(home, None, quick=quick, report=report)


def killed(home: Path, database_url: str | None, *, quick: bool, report: Report) -> dict[str, Any]:
    """Kill the gateway again and again; what is found is compared with what was answered.

    Args:
        home: an empty folder.
        database_url: SQLite in `home` where it is None.
        quick: a few times.
        report: told how it goes.
    """
    box = make_box(home, database_url)
    line = box.add_line("line 3", keep_images="all")
    gateway, log, tally = Gateway(box, home / "gateway.log"), Log(), Tally()
    starts = [gateway.start()]
    with box.client(gateway.address) as client:
        made = client.post("/v1/projects", json={"name": "uploads"}).json()
        good = zip_of({"good/0.png": tiny.photograph(0, 0)})
        client.post(f"/v1/projects/{made['id']}/images", files={"archive": ("a.zip", good)})
    clients = Clients(box, f"/v1/projects/{made['id']}", line, gateway.address, log)
    kills = _QUICK_KILLS if quick else _KILLS
    for number in range(kills):
        died = _round(gateway, clients)
        _compare(box, log, tally, UUID(line.project), died)
        starts.append(gateway.start())
        if number % 10 == 9:
            report(f"{number + 1} kills, {sum(log.replies.values())} answers, {tally}")
    try:
        listed = _listed(box, gateway.address, f"/v1/projects/{made['id']}/images")
    finally:
        gateway.stop()
    wrong = faults(box)
    database = "SQLite" if box.database.is_sqlite else "PostgreSQL"
    box.database.close()
    return {
        "database": database,
        "kills": kills,
        "start_seconds_median": round(median(starts[1:]), 2),
        "answers": dict(sorted(log.replies.items())),
        "found": vars(tally) | {"oldest_lost_seconds": round(tally.oldest_lost_seconds, 2)},
        "wrong": [*wrong, *log.wrong][:20],
        "checks": _checks(log, tally, listed, wrong) | ({} if quick else _midst(log)),
    }


def _round(gateway: Gateway, clients: Clients) -> float:
    """Kill the gateway while the clients are busy; return when."""
    busy = threading.Thread(target=clients.run)
    busy.start()
    time.sleep(random.uniform(0.01, _LONGEST))  # noqa: S311 - a moment like any other
    gateway.kill()
    died = time.monotonic()
    busy.join()
    return died


def _compare(box: Box, log: Log, tally: Tally, project: UUID, died: float) -> None:
    """Compare what was answered with what is there; the gateway is dead."""
    with closing(box.database.engine.connect()) as connection:
        there = set(connection.scalars(select(Image.sha256)))
        moves = connection.execute(
            select(AliasMove.kind, AliasMove.to_version_id, AliasMove.reason)
            .where(AliasMove.project_id == project)
            .order_by(AliasMove.id)
        ).all()
        production = connection.execute(
            select(Alias.version_id).where(Alias.project_id == project)
        ).scalar_one()
        row = PredictionRecord.id
        recorded = set(connection.scalars(select(row).where(row.in_(map(UUID, log.predictions)))))
    _compare_uploads(log, tally, there)
    _compare_moves(log, tally, moves, production)
    lost = [at for name, at in log.predictions.items() if UUID(name) not in recorded]
    tally.predictions += len(log.predictions)
    tally.records_lost += len(lost)
    tally.oldest_lost_seconds = max([tally.oldest_lost_seconds, *(died - at for at in lost)])
    log.predictions.clear()


def _compare_uploads(log: Log, tally: Tally, there: set[str]) -> None:
    tally.lost_uploads = tally.half_uploads = tally.whole_though_unanswered = 0
    for sent in log.uploads:
        found = sum(sha in there for sha in sent.shas)
        tally.lost_uploads += sent.answered and found < len(sent.shas)
        tally.half_uploads += 0 < found < len(sent.shas)
        tally.whole_though_unanswered += not sent.answered and found == len(sent.shas)


def _compare_moves(log: Log, tally: Tally, moves: Sequence[Any], production: UUID) -> None:
    reasons = Counter(move.reason for move in moves)
    answered = [reason for reason, done in log.moves.items() if done]
    order = [move.reason for move in moves if log.moves.get(move.reason or "")]
    tally.lost_moves = sum(not reasons[reason] for reason in answered)
    tally.moves_though_unanswered = sum(
        bool(reasons[reason]) and not done for reason, done in log.moves.items()
    )
    whole = standing_promotions(moves)[-1] == production and max(reasons.values()) == 1
    tally.histories_broken += order != answered or not whole


def _listed(box: Box, address: str, path: str) -> set[str]:
    """Return what the gateway lists of a project's images."""
    found: set[str] = set()
    cursor: dict[str, str] = {}
    with box.client(address) as client:
        while True:
            page = client.get(path, params={"limit": "500"} | cursor).json()
            found |= {image["sha256"] for image in page["items"]}
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}


def _checks(log: Log, tally: Tally, listed: set[str], wrong: list[str]) -> dict[str, bool]:
    first = sha256(tiny.photograph(0, 0)).hexdigest()
    answered = {first, *(sha for sent in log.uploads if sent.answered for sha in sent.shas)}
    sent = {first, *(sha for sent in log.uploads for sha in sent.shas)}
    return {
        "no upload that was answered is lost": tally.lost_uploads == 0,
        "no upload is there in part": tally.half_uploads == 0,
        "what is listed was sent, and all that was answered is listed": answered <= listed <= sent,
        "no promotion or rollback that was answered is lost": tally.lost_moves == 0,
        "every history replays to what is in production": tally.histories_broken == 0,
        "no blob is missing or damaged, no row refers to nothing": not wrong,
        "nothing was answered by an error, no key was answered twice": not log.wrong,
    }


def _midst(log: Log) -> dict[str, bool]:
    """Say whether kills came at the moments that matter; a few of them may miss one."""
    uploads = not all(one.answered for one in log.uploads)
    return {
        "kills came in the midst of uploads and of moves": uploads and not all(log.moves.values())
    }
