"""The gateway as the command line sees it: what goes into one request, and what is asked again."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.cli import api as client
from app.cli.api import Api, GatewayAway, RequestFailed, batches
from app.cli.push import labelled_files, push
from models.errors import BadDataset, BadInput


@contextmanager
def answering(*statuses: int, retry_after: str | None = None) -> Iterator[str]:
    """Serve the statuses, one for each request; 0 cuts the connection. Yield the address."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status = left.pop(0)
            if status:
                problem = {"detail": "The gateway is loading.", "fix": "Wait.", "status": status}
                if status == 409:
                    problem["field"] = "Idempotency-Key"
                text = json.dumps(problem).encode()
                self.send_response(status)
                if retry_after is not None:
                    self.send_header("Retry-After", retry_after)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        do_GET = do_POST = do_PUT = answer  # noqa: N815 - http.server's names

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert left == []


def write(folder: Path, label: str, sizes: list[int]) -> list[tuple[str, Path]]:
    (folder / label).mkdir(parents=True, exist_ok=True)
    files = [(label, folder / label / f"{place:03}.png") for place in range(len(sizes))]
    for (_, path), size in zip(files, sizes, strict=True):
        path.write_bytes(bytes(size))
    return files


def test_a_request_is_limited_in_files_and_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_BATCH_FILES", 3)
    monkeypatch.setattr(client, "_BATCH_BYTES", 100)
    few = write(tmp_path, "few", [1] * 7)
    assert [len(batch) for batch in batches(few)] == [3, 3, 1]
    large = write(tmp_path, "large", [60, 40, 1, 500, 1])
    assert [len(batch) for batch in batches(large)] == [2, 1, 1, 1]
    assert [file for batch in batches(large) for file in batch] == large
    assert list(batches([])) == []


def test_what_may_be_sent_twice_is_sent_until_the_gateway_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.01)
    with answering(503, 0, 200) as address, Api(address, None) as api:
        assert api.call_again("GET", "/v1/tunings/1").status_code == 200
    with (
        answering(503) as address,
        Api(address, None) as api,
        pytest.raises(GatewayAway, match="loading"),
    ):
        api.call("POST", "/v1/projects/1/tunings")
    with (
        answering(404) as address,
        Api(address, None) as api,
        pytest.raises(RequestFailed, match="Wait"),
    ):
        api.call_again("GET", "/v1/tunings/1")
    monkeypatch.setattr(client, "_PATIENCE", 0.0)
    with answering(503) as address, Api(address, None) as api, pytest.raises(GatewayAway):
        api.call_again("GET", "/v1/tunings/1")


@pytest.mark.parametrize(
    ("said", "pauses"),
    [("3", [3.0, 3.0]), ("600", [10.0, 10.0]), (None, [1.0, 1.0]), ("tomorrow", [1.0, 1.0])],
)
def test_it_waits_as_long_as_the_gateway_asked_for_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch, said: str | None, pauses: list[float]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    with answering(503, 503, 200, retry_after=said) as address, Api(address, None) as api:
        assert api.predict("1", b"x", image_id="傷.png")["status"] == 200
    assert waited == pauses


def test_a_request_still_at_work_under_its_key_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_PAUSE", 0.01)
    with answering(0, 409, 200) as address, Api(address, None) as api:
        assert api.predict("1", b"x")["status"] == 200


def test_a_key_copied_from_the_documents_is_named() -> None:
    with pytest.raises(BadInput, match="sl_…"):
        Api("http://127.0.0.1:9", "sl_…")


def test_files_of_a_folder_without_litter(tmp_path: Path) -> None:
    (first,) = write(tmp_path, "good", [1])
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini"):
        (tmp_path / "good" / name).write_bytes(b"x")
    write(tmp_path, "__MACOSX", [1])
    assert labelled_files(tmp_path) == [first]
    (tmp_path / "good" / "more").mkdir()
    with pytest.raises(BadDataset, match="good/more"):
        labelled_files(tmp_path)


def test_an_ok_class_that_is_no_folder_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    write(tmp_path, "fine", [1])
    with pytest.raises(BadDataset, match=r"'fien'.*fine"):
        push(tmp_path, "x", ok=["fien"], url="http://127.0.0.1:9")
