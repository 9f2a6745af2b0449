"""Clients that are slow, leave, or send too much: on sockets, against uvicorn."""

import asyncio
import io
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, suppress
from typing import Any

import httpx2
import numpy as np
import PIL.Image
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.core.database import Database
from app.core.settings import LimitSettings, PredictionSettings, Settings
from app.core.storage import LocalStorage
from app.keys import service as keys
from app.predictions.engines.encoder import ImageEncoder
from models.artifact import Artifact
from tests.integration import files, tiny
from tests.integration.listening import Line, listening
from tests.integration.problems import assert_problem
from tests.integration.services import wait_for
from tests.integration.serving import Served, predictions_of, serve
from tests.integration.test_prediction_path import Gate

PNG = {"content-type": "image/png"}
# Longer than a machine under load stands still; who waits for it in a test waits so long.
BODY_SECONDS = 2.0


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """Nothing here asks the database."""
    kind: str = request.param
    return kind


@pytest.fixture
def limits() -> LimitSettings:
    return LimitSettings(body_seconds=BODY_SECONDS)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    prediction = PredictionSettings(max_batch=4, max_queue=6)
    return settings.model_copy(update={"prediction": prediction})


@pytest.fixture
def gate(encoder: ImageEncoder) -> Gate:
    return Gate(encoder)


@pytest.fixture
def app_encoder(gate: Gate) -> ImageEncoder:
    return gate


@pytest.fixture
def address(app: FastAPI, gate: Gate) -> Iterator[tuple[str, int]]:
    with listening(app) as address:
        yield address
        gate.open.set()


@pytest.fixture
def client(app: FastAPI, database: Database, address: tuple[str, int]) -> Iterator[httpx2.Client]:
    with database.unit_of_work() as session:
        key = keys.create_key(session, name="line", role="admin", project_id=None)
    app.state.gateway.keys.refresh()
    host, port = address
    with httpx2.Client(
        base_url=f"http://{host}:{port}",
        headers={"Authorization": f"Bearer {key.plaintext}"},
        timeout=60,
    ) as client:
        yield client


@pytest.fixture
def served(
    client: Any, database: Database, storage: LocalStorage, artifacts: list[Artifact]
) -> Served:
    return serve(client, database, storage, artifacts[0])


@pytest.fixture
def connect(client: httpx2.Client, address: tuple[str, int]) -> Callable[..., Line]:
    """Return a function that opens a connection and begins a prediction on it."""

    def begin(path: str, length: int, **headers: str) -> Line:
        line = Line(address)
        said = {"Authorization": client.headers["authorization"], "Content-Type": "image/png"}
        line.begin(path, length, said | {k.replace("_", "-"): v for k, v in headers.items()})
        return line

    return begin


def in_flight(client: httpx2.Client) -> float:
    text = client.get("/metrics").text
    (line,) = [
        it for it in text.splitlines() if it.startswith("shotline_prediction_images_in_flight ")
    ]
    return float(line.split()[1])


def answered(client: httpx2.Client, status: int) -> bool:
    wanted = f'predict",status="{status}"}}'
    return wanted in client.get("/metrics").text


FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize("kind", ["image/png", "application/json", "application/zip", FORM])
def test_a_client_that_leaves_in_its_body(
    client: httpx2.Client,
    served: Served,
    connect: Callable[..., Line],
    settings: Settings,
    kind: str,
) -> None:
    with capture_logs() as lines:
        with connect(served.predict, 1000, Content_Type=kind) as line:
            line.send(b"x" * 500)
        wait_for(lambda: answered(client, 499), "the end of the request")
    assert not [entry for entry in lines if entry["log_level"] == "error"]
    assert in_flight(client) == 0
    assert list(settings.scratch_folder.glob("*")) == []
    answer = client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG)
    assert answer.status_code == 200


@pytest.mark.parametrize("many", [False, True], ids=["one image", "an archive"])
def test_a_client_that_leaves_while_it_waits(
    client: httpx2.Client,
    served: Served,
    connect: Callable[..., Line],
    gate: Gate,
    many: bool,
) -> None:
    gate.open.clear()
    first = tiny.photograph(0, 0)
    with connect(served.predict, len(first)) as busy:
        busy.send(first)
        assert gate.entered.acquire(timeout=30)  # in the encoder: what comes now has to wait
        data = files.zip_of({f"{n}.png": tiny.photograph(0, n) for n in range(3)})
        data, kind = (data, "application/zip") if many else (tiny.photograph(0, 9), "image/png")
        count = 3 if many else 1
        accept = {"Accept": "application/json"}
        with connect(served.predict, len(data), Content_Type=kind, **accept) as line:
            line.send(data)
            wait_for(lambda: in_flight(client) == 1 + count, "the images in flight")
        wait_for(lambda: in_flight(client) == 1, "the freed slots")
        wait_for(lambda: answered(client, 499), "the end of the request")
        gate.open.set()
        wait_for(lambda: in_flight(client) == 0, "the first answer")
    client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG)
    assert gate.sizes == [1, 1]


def test_a_full_house_refuses_before_the_body(
    client: httpx2.Client, served: Served, connect: Callable[..., Line], gate: Gate
) -> None:
    gate.open.clear()
    photograph = tiny.photograph(0, 0)
    with ExitStack() as inside:
        for _ in range(6):
            inside.enter_context(connect(served.predict, len(photograph))).send(photograph)
        wait_for(lambda: in_flight(client) == 6, "a full house")
        with capture_logs() as told, connect(served.predict, 100_000, Connection="close") as line:
            refused = line.answer()  # to a request of which nothing but the head was sent
        gate.open.set()
        wait_for(lambda: in_flight(client) == 0, "the answers")
    assert refused.status == 503
    assert refused.headers["content-type"] == "application/problem+json"
    assert int(refused.headers["retry-after"]) >= 1
    assert "6 images" in refused.json()["detail"]
    assert [entry["requests"] for entry in told if entry["event"] == "predictions_refused"] == [1]
    assert "shotline_predictions_shed_total 1.0" in client.get("/metrics").text


def test_a_client_that_leaves_under_a_key_finds_its_answer(
    client: httpx2.Client, served: Served, connect: Callable[..., Line], gate: Gate
) -> None:
    gate.open.clear()
    photograph = tiny.photograph(0, 0)
    with connect(served.predict, len(photograph), Idempotency_Key="one") as line:
        line.send(photograph)
        assert gate.entered.acquire(timeout=30)
    gate.open.set()
    key = PNG | {"Idempotency-Key": "one"}

    def replayed() -> bool:
        again = client.post(served.predict, content=photograph, headers=key)
        return again.headers.get("idempotent-replayed") == "true"

    wait_for(replayed, "the answer under its key")
    assert gate.sizes == [1]


@pytest.mark.parametrize("kind", ["image/png", "application/json", "application/zip", FORM])
def test_a_body_that_stands_still_is_ended(
    client: httpx2.Client,
    served: Served,
    connect: Callable[..., Line],
    settings: Settings,
    kind: str,
) -> None:
    with connect(served.predict, 1000, Content_Type=kind) as line:
        line.send(b"x" * 500)
        answer = line.answer()
    assert answer.status == 408
    assert answer.headers["connection"] == "close"
    problem = answer.json()
    assert problem["type"] == "urn:shotline:problem:too-slow"
    assert problem["field"] == "body"
    assert "16384 bytes within 2 s" in problem["detail"]
    assert list(settings.scratch_folder.glob("*")) == []


def test_a_body_of_one_byte_at_a_time_holds_nobody_up_and_is_ended(
    client: httpx2.Client, served: Served, connect: Callable[..., Line]
) -> None:
    """More of them than there are slots and threads: others are answered meanwhile."""
    many = [connect(served.predict, 1000, Content_Type=FORM) for _ in range(40)]
    left = threading.Event()

    def drip() -> None:
        while not left.wait(0.05):
            for line in many:
                with suppress(OSError):
                    line.send(b"x")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        assert in_flight(client) == 0
        answer = client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG)
        assert answer.status_code == 200, answer.text
        assert {line.answer().status for line in many} == {408}
    finally:
        left.set()
        dripping.join()
        for line in many:
            line.socket.close()


def test_a_slow_body_that_comes_on_is_taken(
    client: httpx2.Client, served: Served, connect: Callable[..., Line]
) -> None:
    """It takes longer than any window, and brings enough in each."""
    photograph = tiny.photograph(0, 1, size=250)
    assert len(photograph) > 6 * 16_384
    pause = threading.Event()
    with connect(served.predict, len(photograph), Connection="close") as line:
        for at in range(0, len(photograph), 16_384):
            line.send(photograph[at : at + 16_384])
            pause.wait(BODY_SECONDS / 8)
        answer = line.answer()
    assert answer.status == 200, answer.body


def test_a_deadline_that_passes_before_the_image_is_decoded(
    app: FastAPI, client: httpx2.Client, served: Served, gate: Gate, settings: Settings
) -> None:
    decoders, go_on, held = predictions_of(app)._decoders, threading.Event(), list[bool]()
    for _ in range(settings.prediction.decode_workers):
        decoders.submit([lambda: held.append(go_on.wait(60))])
    try:
        late = client.post(
            served.predict,
            params={"deadline_ms": 20},
            content=tiny.photograph(0, 1),
            headers=PNG,
        )
    finally:
        go_on.set()
    assert_problem(late, 504, "deadline-passed", field="deadline_ms")
    wait_for(lambda: held == [True] * settings.prediction.decode_workers, "the decoders")
    assert in_flight(client) == 0
    assert gate.sizes == []


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "soon", "86400001"])
def test_deadlines_that_are_none(client: httpx2.Client, served: Served, value: str) -> None:
    refused = client.post(
        served.predict,
        params={"deadline_ms": value},
        content=tiny.photograph(0, 1),
        headers=PNG,
    )
    assert_problem(refused, 422, "bad-input", names=value, field="deadline_ms")


@pytest.mark.parametrize("kind", ["multipart", "json", "zip"])
def test_ten_thousand_images_in_one_request(
    client: httpx2.Client, served: Served, gate: Gate, kind: str
) -> None:
    sent: dict[str, Any] = {
        "multipart": {"files": [("image", (f"{n}.png", b"x", "image/png")) for n in range(10_000)]},
        "json": {"json": {"images": [{"image": "AAAA"}] * 10_000}},
        "zip": {
            "content": files.zip_of({f"{n}.png": b"x" for n in range(10_000)}),
            "headers": {"content-type": "application/zip"},
        },
    }
    refused = client.post(served.predict, **sent[kind])
    assert_problem(refused, 413, "too-large", names=("10000 images", "1000 are"), field="images")
    assert gate.sizes == []
    assert in_flight(client) == 0


def test_many_images_never_lie_in_memory_together(
    app: FastAPI, client: httpx2.Client, served: Served
) -> None:
    """A form of 100 MB is refused with a tenth of that in memory; straight into the gateway."""
    part = b'--b\r\nContent-Disposition: form-data; name="image"; filename="%d.png"\r\n\r\n'
    image = bytes(10_000)

    async def ask() -> list[MutableMapping[str, Any]]:
        left, answer = iter(range(10_000)), []

        async def receive() -> dict[str, Any]:
            number = next(left, None)
            if number is None:
                return {"type": "http.request", "body": b"--b--\r\n", "more_body": False}
            body = part % number + image + b"\r\n"
            return {"type": "http.request", "body": body, "more_body": True}

        async def send(message: MutableMapping[str, Any]) -> None:
            answer.append(message)

        authorization = client.headers["authorization"].encode()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": served.predict,
            "raw_path": served.predict.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": [
                (b"content-type", b"multipart/form-data; boundary=b"),
                (b"authorization", authorization),
            ],
            "client": ("test", 1),
            "server": ("test", 80),
        }
        await app(scope, receive, send)
        return answer

    # The first model reserves the memory of all.
    assert client.post(served.predict, content=tiny.photograph(0, 1), headers=PNG).is_success
    tracemalloc.start()
    try:
        started, body = asyncio.run(ask())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert started["status"] == 413
    assert "10000 images" in json.loads(body["body"])["detail"]
    assert peak < 30_000_000


def saved(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def frames() -> list[PIL.Image.Image]:
    return [PIL.Image.fromarray(noise(40, 40, 3) // (n + 1)) for n in range(3)]


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (saved(frames()[0], "GIF", save_all=True, append_images=frames()[1:]), "GIF holds 3"),
        (saved(frames()[0], "TIFF", save_all=True, append_images=frames()[1:]), "TIFF holds 3"),
        (saved(PIL.Image.fromarray(noise(40, 40).astype(np.float32)), "TIFF"), "floating-point"),
    ],
    ids=["animated GIF", "TIFF of pages", "TIFF of floats"],
)
def test_photographs_that_are_refused(
    client: httpx2.Client, served: Served, data: bytes, names: str
) -> None:
    refused = client.post(served.predict, content=data, headers=PNG)
    assert_problem(refused, 422, "bad-image", names=names)


@pytest.mark.parametrize(
    "data",
    [
        saved(frames()[0], "GIF"),
        saved(PIL.Image.fromarray(noise(40, 40, 4), "CMYK"), "JPEG"),
        saved(PIL.Image.fromarray(noise(40, 40, dtype=np.uint16)), "PNG"),
        saved(PIL.Image.fromarray(noise(40, 40)), "TIFF"),
        saved(PIL.Image.fromarray(noise(40, 40, dtype=np.uint16)), "TIFF"),
        saved(PIL.Image.fromarray(noise(40, 40) > 99), "PNG"),
        saved(frames()[0].convert("P"), "PNG"),
        saved(frames()[0].convert("RGBA"), "WEBP"),
    ],
    ids=[
        "GIF", "CMYK JPEG", "16-bit PNG", "grey TIFF", "16-bit TIFF", "1-bit PNG", "palette",
        "RGBA WebP",
    ],
)  # fmt: skip
def test_photographs_of_other_kinds_are_decided_on(
    client: httpx2.Client, served: Served, data: bytes
) -> None:
    answer = client.post(served.predict, content=data, headers=PNG)
    assert answer.status_code == 200, answer.text
    assert sum(it["probability"] for it in answer.json()["probabilities"]) == pytest.approx(
        1, abs=1e-4
    )
