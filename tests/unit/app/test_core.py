"""Small parts of the core: ids, text, access, slices, repeating."""

import tempfile
import threading
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.access import ROLES, Principal
from app.core.background import Repeater
from app.core.errors import BadRequest, Forbidden, NotFound
from app.core.ids import new_id
from app.core.queue import TUNE, InMemoryQueue
from app.core.slices import Slice
from app.core.types import UtcDateTime
from app.http.problems import KINDS, kind_of
from models.errors import BadName, ShotlineError
from models.names import clean_text, printable


def test_ids_sort_by_time() -> None:
    made = [new_id() for _ in range(1000)]
    assert made == sorted(made)
    assert {identifier.version for identifier in made} == {7}
    at = datetime.fromtimestamp((made[0].int >> 80) / 1000, UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 60


@pytest.mark.parametrize(
    ("given_", "clean"), [(" a ", "a"), ("e\u0301", "\xe9"), ("良品 🔥", "良品 🔥")]
)
def test_clean_text(given_: str, clean: str) -> None:
    assert clean_text(given_, "name") == clean


@pytest.mark.parametrize("bad", ["", " ", "a\0", "a\x7f", "\ud800", "x" * 201])
def test_text_that_is_refused(bad: str) -> None:
    with pytest.raises(BadName) as caught:
        clean_text(bad, "name")
    assert caught.value.field == "name"


@given(st.text(st.characters(codec=None)))
def test_printable_fits_everywhere(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 200
    assert "\0" not in shown
    shown.encode()
    assert printable(shown) == shown


def test_roles_include_those_before_them() -> None:
    for place, role in enumerate(ROLES):
        principal = Principal(None, "x", role)
        assert [principal.has_role(other) for other in ROLES] == [
            other <= place for other in range(len(ROLES))
        ]
    with pytest.raises(Forbidden, match="engineer"):
        Principal(None, "x", "operator").require_role("engineer")


def test_a_key_of_one_project() -> None:
    mine, other = new_id(), new_id()
    principal = Principal(None, "x", "admin", mine)
    principal.require_project(mine, "project", mine)
    with pytest.raises(NotFound, match=str(other)):
        principal.require_project(other, "project", other)
    with pytest.raises(Forbidden):
        principal.require_all_projects()


@given(st.binary(max_size=200), st.data())
def test_a_slice_reads_as_the_bytes_it_is(content: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(content)))
    length = data.draw(st.integers(0, len(content) - start))
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(content)
        part, expected = Slice(file.fileno(), start, length), content[start : start + length]
        offset = data.draw(st.integers(-10, length + 10))
        size = data.draw(st.integers(-1, length + 10))
        assert part.seek(offset) == max(0, offset)
        wanted = expected[max(0, offset) :]
        assert part.read(size) == (wanted if size < 0 else wanted[:size])
        assert part.seek(-length, 2) == 0
        buffer = bytearray(length)
        assert part.readinto(buffer) == length
        assert bytes(buffer) == expected


def test_a_guarded_slice_refuses_large_reads() -> None:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"x" * 100)
        part = Slice(file.fileno(), 0, 100).guarded(10)
        assert part.read(10) == b"x" * 10
        with pytest.raises(BadRequest, match="90 bytes"):
            part.read()


def test_naive_times_are_refused() -> None:
    kind = UtcDateTime()
    with pytest.raises(ValueError, match="time zone"):
        kind.process_bind_param(datetime(2026, 1, 1), None)  # type: ignore[arg-type]


def test_a_repeater_survives_errors_and_stops() -> None:
    called = threading.Semaphore(0)

    def action() -> None:
        called.release()
        raise RuntimeError("again and again")

    repeater = Repeater("test", action, 0.001)
    repeater.start()
    for _ in range(3):
        assert called.acquire(timeout=10)
    repeater.stop()
    assert not any(thread.name == "test" for thread in threading.enumerate())


def test_the_queue_that_remembers() -> None:
    queue = InMemoryQueue()
    queue.send(TUNE, "1")
    assert queue.sent == [("shotline.tune", ("1",))]
    queue.error = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        queue.send(TUNE, "2")
    with pytest.raises(ConnectionError):
        queue.check()
    queue.close()


def test_every_error_has_an_answer() -> None:
    def below(cls: type[ShotlineError]) -> set[type[ShotlineError]]:
        found = {cls}
        for child in cls.__subclasses__():
            found |= below(child)
        return found

    for cls in below(ShotlineError):
        answer = next(KINDS[parent] for parent in cls.__mro__ if parent in KINDS)
        assert 400 <= answer.status <= 507
    slugs = [kind.slug for kind in KINDS.values()]
    assert (
        len(slugs) - len(set(slugs)) == 1
    )  # damaged bytes and damaged artifacts are one to people
    assert kind_of(NotFound.of("project", UUID(int=0))).status == 404
