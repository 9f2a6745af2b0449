"""Atomic writing: the whole of the new file, or the whole of the old one."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.errors import StorageFull, StorageUnusable
from models.files import write_atomic

FULL = OSError(errno.ENOSPC, "No space left on device")


class FullFile:
    """A file whose disk fills after a few bytes."""

    def __init__(self, handle: int, mode: str) -> None:
        self._file = Path(f"/proc/self/fd/{handle}").open(mode)  # noqa: SIM115 - closed below
        os.close(handle)

    def __enter__(self) -> "FullFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._file.write(data[:3])
        raise FULL


def fails(*_: object, **__: object) -> Any:
    raise FULL


FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "write": lambda patch: patch.setattr(os, "fdopen", FullFile),
    "fsync": lambda patch: patch.setattr(os, "fsync", fails),
    "rename": lambda patch: patch.setattr(Path, "replace", fails),
    "create": lambda patch: patch.setattr(os, "open", fails),
}


def test_a_file_and_its_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "model"

    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_folders_that_were_made_survive_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    path = tmp_path / "a" / "b" / "model"
    write_atomic(path, b"new")
    assert flushed[1:] == [path.parent, tmp_path / "a", tmp_path]
    write_atomic(path, b"newer")
    assert flushed[5:] == [path.parent]


def test_an_older_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old and longer")

    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Any, old: bytes | None
) -> None:
    path = tmp_path / "model"
    if old is not None:
        path.write_bytes(old)

    fault(monkeypatch)
    with pytest.raises(StorageFull, match="model could not be"):
        write_atomic(path, b"new and longer")

    left = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert left == ({} if old is None else {"model": old})


def test_a_full_disk_while_a_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", fails)

    with pytest.raises(StorageFull):
        write_atomic(tmp_path / "new" / "model", b"new")


def test_bytes_and_rename_are_flushed_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    flush = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomic(tmp_path / "model", b"new")

    assert len(flushed) == 2
    assert flushed[0].startswith(".model.")
    assert flushed[1] == tmp_path.name


def test_other_faults_clean_up_and_name_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageUnusable, match="model cannot be written: bad disk"):
        write_atomic(tmp_path / "model", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    with pytest.raises(StorageUnusable, match="model cannot be written: Is a directory"):
        write_atomic(tmp_path / "model", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_others_may_read_it_as_the_umask_says(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "model", b"new")
    finally:
        os.umask(before)
    assert (tmp_path / "model").stat().st_mode & 0o777 == mode
