"""The store of answers."""

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import Conflict
from app.predictions import idempotency
from app.predictions.idempotency import IdempotencyStore, StoredAnswer
from models.errors import BadInput

ANSWER = StoredAnswer(200, "application/json", b'{"a": 1}')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[IdempotencyStore]:
    store = IdempotencyStore(tmp_path / "answers.db", hours=24)
    store.start()
    yield store
    store.stop()


def test_the_same_request_gets_the_stored_answer(store: IdempotencyStore) -> None:
    assert store.begin("s", "k", "f") is None
    store.finish("s", "k", ANSWER)
    assert store.begin("s", "k", "f") == ANSWER


def test_another_request_under_the_key(store: IdempotencyStore) -> None:
    store.begin("s", "k", "f")
    with pytest.raises(BadInput, match="'k' was used for another request"):
        store.begin("s", "k", "other")


def test_still_running(store: IdempotencyStore) -> None:
    store.begin("s", "k", "f")
    with pytest.raises(Conflict, match="still being answered"):
        store.begin("s", "k", "f")


def test_scopes_do_not_meet(store: IdempotencyStore) -> None:
    store.begin("one", "k", "f")
    assert store.begin("two", "k", "other") is None


def test_a_forgotten_key_is_free_and_a_remembered_one_is_not(store: IdempotencyStore) -> None:
    store.begin("s", "k", "f")
    store.forget_unfinished("s", "k")
    assert store.begin("s", "k", "other") is None
    store.finish("s", "k", ANSWER)
    store.forget_unfinished("s", "k")
    assert store.begin("s", "k", "other") == ANSWER


def test_a_restart_keeps_answers_and_forgets_what_was_under_way(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    first = IdempotencyStore(path, hours=24)
    first.start()
    first.begin("s", "done", "f")
    first.finish("s", "done", ANSWER)
    first.begin("s", "under way", "f")
    first.stop()
    second = IdempotencyStore(path, hours=24)
    second.start()
    assert second.begin("s", "done", "f") == ANSWER
    assert second.begin("s", "under way", "f") is None
    second.stop()


def test_answers_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = IdempotencyStore(tmp_path / "answers.db", hours=1)
    store.start()
    monkeypatch.setattr(idempotency, "_PORTION", 2)
    for key in "abcde":
        store.begin("s", key, "f")
        store.finish("s", key, ANSWER)
    store.sweep()
    assert store.begin("s", "a", "f") == ANSWER
    later = time.time() + 3700
    monkeypatch.setattr(time, "time", lambda: later)
    store.sweep()
    assert [store.begin("s", key, "other") for key in "abcde"] == [None] * 5
    store.stop()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"no database" * 1000)
    store = IdempotencyStore(path, hours=1)
    store.start()
    assert store.begin("s", "k", "f") is None
    store.stop()
    assert (tmp_path / "answers.db.damaged").read_bytes().startswith(b"no database")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_keys_that_cannot_be(store: IdempotencyStore, key: str) -> None:
    with pytest.raises(BadInput, match=f"{len(key)} characters"):
        store.begin("s", key, "f")


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        IdempotencyStore(tmp_path / "answers.db", hours=1).begin("s", "k", "f")
