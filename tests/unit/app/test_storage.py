"""Content-addressed storage in a folder."""

import hashlib
import io
import os
import threading
from pathlib import Path

import pytest

from app.core.errors import Damaged, NotFound
from app.core.storage import LocalStorage, keep_young
from models.errors import StorageFull

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def storage(tmp_path: Path) -> LocalStorage:
    return LocalStorage(tmp_path / "blobs")


def test_put_and_read(storage: LocalStorage) -> None:
    assert storage.put(b"hello") == HELLO
    assert storage.put(io.BytesIO(b"hello")) == HELLO
    assert storage.read(HELLO) == b"hello"
    assert (storage.root / HELLO[:2] / HELLO[2:4] / HELLO).read_bytes() == b"hello"
    (blob,) = storage.blobs()
    assert (blob.sha256, blob.size) == (HELLO, 5)


@pytest.mark.parametrize("sha256", [HELLO, "../../etc/passwd", "", "G" * 64, HELLO + "\n"])
def test_what_is_not_there(storage: LocalStorage, sha256: str) -> None:
    with pytest.raises(NotFound):
        storage.read(sha256)


def test_rot_is_noticed(storage: LocalStorage) -> None:
    storage.put(b"hello")
    (storage.root / HELLO[:2] / HELLO[2:4] / HELLO).write_bytes(b"hellp")
    with pytest.raises(Damaged, match=HELLO):
        storage.read(HELLO)


def test_what_a_killed_put_left_behind_is_removed_once_it_is_old(storage: LocalStorage) -> None:
    storage.put(b"hello")
    old, young = (storage.root / "incoming" / name for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"hel")
    os.utime(old, (0, 0))
    storage.tidy(min_age=3600)
    assert list((storage.root / "incoming").iterdir()) == [young]
    assert storage.read(HELLO) == b"hello"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os if call == "fsync" else Path, call, full)
    with pytest.raises(StorageFull):
        storage.put(b"hello")
    assert list(storage.blobs()) == []
    assert list((storage.root / "incoming").iterdir()) == []


def test_bytes_are_flushed_before_they_are_seen(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file before the rename, then its folder and each above it."""
    seen: list[bool] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        seen.append(any(storage.blobs()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.put(b"hello")
    assert seen == [False, True, True, True, True]


def test_the_name_of_what_another_put_is_flushed_too(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one may have been killed before it came to that."""
    LocalStorage(storage.root).put(b"hello")
    flushed: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    storage.put(b"hello")
    folder = storage.root / HELLO[:2] / HELLO[2:4]
    assert flushed == [folder, folder.parent, storage.root, storage.root.parent]
    storage.put(b"hello")
    assert flushed[4:] == [folder]  # the others are known to be there


def test_a_folder_in_one_that_may_not_be_read(
    storage: LocalStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: object, *args: object, **kwargs: object) -> int:
        if path == storage.root.parent:
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    assert storage.put(b"hello") == HELLO
    assert storage.read(HELLO) == b"hello"


@pytest.mark.parametrize("left", [b"hellp", b"hel", b""])
def test_whoever_has_the_bytes_heals_what_is_damaged(storage: LocalStorage, left: bytes) -> None:
    storage.put(b"hello")
    (storage.root / HELLO[:2] / HELLO[2:4] / HELLO).write_bytes(left)
    assert storage.put(b"hello") == HELLO
    assert storage.read(HELLO) == b"hello"


def test_blobs_are_made_young_before_their_rows_are_written(storage: LocalStorage) -> None:
    storage.put(b"hello")
    os.utime(storage.root / HELLO[:2] / HELLO[2:4] / HELLO, (0, 0))
    assert keep_young(storage, [HELLO, "0" * 64]) == ["0" * 64]
    assert not storage.remove_old(HELLO, 3600)


def test_putting_again_makes_young(storage: LocalStorage) -> None:
    storage.put(b"hello")
    os.utime(storage.root / HELLO[:2] / HELLO[2:4] / HELLO, (0, 0))
    assert next(iter(storage.blobs())).age > 3600
    storage.put(b"hello")
    assert not storage.remove_old(HELLO, 3600)
    os.utime(storage.root / HELLO[:2] / HELLO[2:4] / HELLO, (0, 0))
    assert storage.remove_old(HELLO, 3600)
    assert not storage.remove_old(HELLO, 3600)


def test_many_at_once(storage: LocalStorage) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(storage.put(b"hello"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [HELLO] * 8
    assert len(list(storage.blobs())) == 1


def test_check(storage: LocalStorage) -> None:
    storage.check()
    assert list((storage.root / "incoming").iterdir()) == []
