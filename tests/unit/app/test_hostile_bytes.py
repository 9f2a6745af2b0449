"""Bodies and archives of random and mutated bytes: an answer of ours, or a result; nothing else."""

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.core.settings import LimitSettings
from app.core.slices import Slice
from app.http.spool import SpooledBody
from app.images.archive import open_archive
from app.images.form import read_upload
from models.errors import ShotlineError

LIMITS = LimitSettings(upload_files=50, archive_bytes=1_000_000, file_bytes=10_000)
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="label"\r\n\r\ngood\r\n'
    b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\nbytes\r\n--b--\r\n"
)


def a_zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good/1.png", b"x" * 500)
        archive.writestr("傷/2.png", b"y" * 500)
    return out.getvalue()


def a_zip_without_names() -> bytes:
    """A zip whose entries have names of no characters, which zipfile's `is_dir` cannot take."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"x")
    return out.getvalue()


def a_tar(mode: str) -> bytes:
    out = io.BytesIO()
    kind = tarfile.PAX_FORMAT
    with tarfile.open(fileobj=out, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name in ("good/1.png", "傷/" + "x" * 120 + ".png"):
            info = tarfile.TarInfo(name)
            info.size = 500
            archive.addfile(info, io.BytesIO(b"x" * 500))
    return out.getvalue()


SAMPLES = (a_zip(), a_tar("w"), a_tar("w:gz"))


@st.composite
def mutated(draw: st.DrawFn, samples: tuple[bytes, ...]) -> bytes:
    """One of the samples with bytes changed, cut out or repeated."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        end = at + draw(st.integers(0, 20))
        data[at:end] = draw(st.binary(max_size=20))
    return bytes(data)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("scratch")
    yield folder
    assert list(folder.iterdir()) == []


@settings(max_examples=400, deadline=2000)
@given(data=st.one_of(mutated(SAMPLES), st.binary(max_size=700)))
@example(data=SAMPLES[0][:-10])
@example(data=a_zip_without_names())
@example(data=b"PK\x05\x06" + b"\0" * 18)
def test_archives(scratch: Path, data: bytes) -> None:
    with tempfile.TemporaryFile(buffering=0) as file, suppress(ShotlineError):
        file.write(data)
        source = Slice(file.fileno(), 0, len(data))
        with open_archive(source, LIMITS, scratch, split="train", groups={}) as files:
            for entry in files:
                with suppress(ShotlineError):
                    assert len(entry.read(10_000)) <= 10_000


@settings(max_examples=400, deadline=2000)
@given(data=st.one_of(mutated((FORM,)), st.binary(max_size=200)))
def test_forms(scratch: Path, data: bytes) -> None:
    with tempfile.TemporaryFile(buffering=0) as file, suppress(ShotlineError), ExitStack() as stack:
        file.write(data)
        body = SpooledBody(SimpleNamespace(file=file), len(data))
        upload = read_upload(body, "multipart/form-data; boundary=b", {})
        for entry in upload.open(stack, LIMITS, scratch):
            entry.read(100)


@settings(max_examples=200)
@given(st.text(max_size=60))
def test_content_types(kind: str) -> None:
    with tempfile.TemporaryFile(buffering=0) as file, suppress(ShotlineError):
        file.write(FORM)
        body = SpooledBody(SimpleNamespace(file=file), len(FORM))
        read_upload(body, f"multipart/form-data; {kind}", {})
