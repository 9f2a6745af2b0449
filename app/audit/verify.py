"""Whether the record of changes is whole: every entry's seal, its number, and the chain's end."""

import contextlib
import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from app.audit import repository
from app.audit.service import head_row, state_of
from app.core.audit import key_file_of
from app.core.database import Database
from app.core.errors import Damaged
from app.core.seal import NO_ENTRY, AuditKey, Head, canonical, head_file, load_key, read_head
from models.errors import BadInput

# Problems that are listed one by one.
MOST_LISTED = 100

_REPORT_EVERY = 1000
_OWN = "the database's own head"
OnProgress = Callable[[int, int], None]


class NotedHead(NamedTuple):
    """An end of the chain that someone noted down, to be found in it."""

    where: str
    head: Head


@dataclass
class Verdict:
    """What was found.

    Attributes:
        head: the end of the chain.
        compared: where the ends were noted that the chain was compared with.
        problems: sentences; the first `MOST_LISTED`.
        count: how many there are.
    """

    head: Head = NO_ENTRY
    compared: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    count: int = 0

    def note(self, problem: str) -> None:
        """Add a problem."""
        self.count += 1
        if len(self.problems) < MOST_LISTED:
            self.problems.append(problem)


def verify(
    database: Database, *, given: Head | None = None, on_progress: OnProgress | None = None
) -> Verdict:
    """Verify every entry, and compare the end with the heads that were noted.

    Args:
        database: with the chain; others may add to it meanwhile.
        given: an end that was noted elsewhere, such as in a log.
        on_progress: told the number of entries that are done, and of all.

    Raises:
        Unavailable: the key is missing or cannot be read, or the database is away.
        Damaged: the row that holds the chain's end is gone.
    """
    key_path = key_file_of(database)
    # Read before the database is: what is kept was committed.
    noted, unreadable = _kept(key_path)
    with snapshot(database) as session:
        row = head_row(session)
        noted += [NotedHead(_OWN, Head(row.sequence, row.mac))]
        if given is not None:
            noted.append(NotedHead("the head that was given", given))
        key = _key(key_path, row.sequence)
        verdict = Verdict(compared=[entry.where for entry in noted])
        if unreadable:
            verdict.note(unreadable)
        chain = _Chain(key, {entry.head.sequence for entry in noted}, verdict)
        for done, entry in enumerate(repository.every_entry(session), start=1):
            chain.add(entry)
            if on_progress is not None and done % _REPORT_EVERY == 0:
                on_progress(done, row.sequence)
    return chain.end(noted, key_path)


@contextlib.contextmanager
def snapshot(database: Database) -> Iterator[Session]:
    """Yield a session that reads, and to its end sees the database as it is now."""
    with database.reading() as session:
        if not database.is_sqlite:  # where whatever reads does
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        yield session


def _kept(key_path: Path) -> tuple[list[NotedHead], str | None]:
    path = head_file(key_path)
    try:
        kept = read_head(path)
    except (OSError, BadInput) as error:
        return [], f"The head kept in {path} cannot be read: {error}"
    return ([] if kept is None else [NotedHead(f"the head kept in {path}", kept)]), None


def _key(path: Path, sequence: int) -> AuditKey:
    key = load_key(path)
    if key is None and sequence == 0:
        return AuditKey(b"")  # there is nothing to verify yet
    if key is None:
        raise Damaged(
            f"The audit key {path} is missing: nothing can be verified.",
            fix="Put the file back, or name it with SHOTLINE_AUDIT_KEY_FILE.",
        )
    return key


class _Chain:
    """Follows the chain from entry to entry.

    Args:
        key: that sealed it.
        wanted: numbers of the entries whose MACs are to be compared at the end.
        verdict: takes what is found.
    """

    def __init__(self, key: AuditKey, wanted: set[int], verdict: Verdict) -> None:
        self._key, self._wanted, self._verdict = key, wanted, verdict
        self._last = NO_ENTRY
        self._macs = {0: NO_ENTRY.mac}
        self._entries = self._sealed = 0

    def add(self, entry: dict[str, Any]) -> None:
        """Verify the next entry."""
        self._entries += 1
        number, mac = entry["sequence"], entry["mac"]
        fits = hmac.compare_digest(self._key.mac(entry, self._last.mac), mac)
        self._sealed += fits
        if number != self._last.sequence + 1:
            self._note_gap(number)
        elif not fits:
            self._verdict.note(f"Entry {number} was changed, or is not what was written there.")
        self._last = Head(number, mac)
        if number in self._wanted:
            self._macs[number] = mac

    def _note_gap(self, number: int) -> None:
        first, last = self._last.sequence + 1, number - 1
        if last < first:
            self._verdict.note(f"Entry {number} has a number that no entry can have.")
            return
        missing = f"Entry {first} is" if first == last else f"Entries {first} to {last} are"
        self._verdict.note(f"{missing} missing, so that entry {number} cannot be verified.")

    def end(self, noted: list[NotedHead], key_path: Path) -> Verdict:
        """Compare the end with what was noted, and return what was found."""
        self._verdict.head = self._last
        if self._entries and not self._sealed:
            self._verdict.problems.clear()
            self._verdict.count = 0
            self._verdict.note(
                f"None of {self._entries} entries was sealed by the key in {key_path}: it is"
                " another key, or all of them were changed."
            )
        for entry in noted:
            self._compare(entry)
        return self._verdict

    def _compare(self, noted: NotedHead) -> None:
        number, last = noted.head.sequence, self._last.sequence
        if number > last:
            self._verdict.note(
                f"The chain ends with entry {last}, and {noted.where} is {number}: the entries"
                " behind it were cut off, or this is a database restored from a backup."
            )
        elif self._macs.get(number) != noted.head.mac:
            self._verdict.note(f"Entry {number} is not the one that {noted.where} speaks of.")
        elif noted.where == _OWN and number < last:
            self._verdict.note(f"Entries {number + 1} to {last} stand behind {noted.where}.")


def exported(entry: dict[str, Any]) -> str:
    """Return an entry as one line of JSON, `before` and `after` as JSON within it."""
    states = {name: state_of(entry[name]) for name in ("before", "after")}
    return canonical(entry | states)
