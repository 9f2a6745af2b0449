"""Wrong keys: limited by address and by prefix, counted, logged without the key."""

from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.core.access import Principal
from app.core.database import Database
from app.core.settings import AuthSettings, Settings
from app.http.failures import MOST_REMEMBERED, TokenBuckets, network_of
from app.keys import service
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem
from tests.integration.services import environment_of, gateway, redis_server, wait_for

WHO = "/v1/keys/current"
ALLOWED = 3


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # No token comes back while the test runs.
    auth = AuthSettings(auth_failures=ALLOWED, auth_failure_seconds=3600)
    return settings.model_copy(update={"auth": auth})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def wrong(number: int) -> str:
    """A key that looks like one, with a prefix of its own."""
    digits = "".join("abcdefgh"[int(digit)] for digit in f"{number:08o}")
    return f"sl_{digits}_wrong-secret-{number}"


def statuses(client: TestClient, *keys: str) -> list[int]:
    return [client.get(WHO, headers=bearer(key)).status_code for key in keys]


def test_wrong_keys_of_one_address_are_limited(client: TestClient) -> None:
    keys = [wrong(number) for number in range(ALLOWED + 2)]
    assert statuses(client, *keys) == [401] * ALLOWED + [429] * 2
    response = client.get(WHO, headers=bearer(wrong(99)))
    assert_problem(response, 429, "too-many-failures", names="address", field="Authorization")
    assert 1 <= int(response.headers["retry-after"]) <= 3600


def test_a_good_key_is_let_in_from_a_limited_address(
    make_client: MakeClient, client: TestClient
) -> None:
    """The line is not stopped by an attacker behind the same NAT."""
    line = make_client("operator")
    statuses(client, *[wrong(number) for number in range(20)])
    assert line.get(WHO).status_code == 200
    assert statuses(client, wrong(99)) == [429]


def test_wrong_secrets_of_one_prefix_are_limited_from_everywhere(
    app: FastAPI, client: TestClient
) -> None:
    prefix = client.headers["Authorization"].removeprefix("Bearer ")[:12]
    found = []
    for number in range(ALLOWED + 1):
        elsewhere = TestClient(app, client=(f"192.0.2.{number}", 5000))
        elsewhere.portal = client.portal
        found += statuses(elsewhere, f"{prefix}guess-{number}")
    assert found == [401] * ALLOWED + [429]
    assert client.get(WHO).status_code == 200  # its holder is let in


def test_a_request_without_a_key_is_not_limited(client: TestClient, anonymous: TestClient) -> None:
    assert [anonymous.get(WHO).status_code for _ in range(ALLOWED + 5)] == [401] * (ALLOWED + 5)
    assert statuses(client, wrong(1)) == [401]


def test_failures_are_counted_and_logged_without_the_key(
    client: TestClient, anonymous: TestClient
) -> None:
    password = "correct horse battery"  # pasted in place of a key: nothing of it is shown
    with structlog.testing.capture_logs() as logs:
        statuses(client, wrong(1), password, wrong(2), wrong(3))
        anonymous.get(WHO)
    text = client.get("/metrics").text
    for reason, count in (("wrong", 3), ("limited", 1), ("missing", 1)):
        assert f'shotline_auth_failures_total{{reason="{reason}"}} {count}.0' in text
    failed = [line for line in logs if line["event"] == "auth_failed"]
    assert [line["prefix"] for line in failed] == [wrong(1)[:11], None, wrong(2)[:11]]
    assert {line["address"] for line in failed} == {"testclient"}
    assert "secret" not in str(logs)
    assert "horse" not in str(logs)


def test_a_bucket_fills_again() -> None:
    now = 0.0
    buckets = TokenBuckets(10, 6.0, clock=lambda: now)
    assert [buckets.take("a") for _ in range(10)] == [0.0] * 10
    assert buckets.take("a") == pytest.approx(6.0)
    now = 4.0
    assert buckets.take("a") == pytest.approx(2.0)
    now = 6.0
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(6.0)
    now = 10_000.0
    assert [buckets.take("a") for _ in range(11)] == [0.0] * 10 + [pytest.approx(6.0)]
    assert buckets.take("b") == 0.0


def test_what_is_remembered_is_bounded_and_the_least_recently_used_goes() -> None:
    buckets = TokenBuckets(1, 6.0, size=3, clock=lambda: 0.0)
    for name in ("a", "b", "c", "a", "d"):  # b is the one unused for longest
        buckets.take(name)
    assert len(buckets) == 3
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0.0
    many = TokenBuckets(1, 6.0)
    for number in range(MOST_REMEMBERED + 10):
        many.take(str(number))
    assert len(many) == MOST_REMEMBERED


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        (None, "local"),
        ("testclient", "testclient"),
    ],
)
def test_what_an_address_is_limited_as(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_a_key_revoked_elsewhere_is_refused(
    client: TestClient, settings: Settings, database_kind: str
) -> None:
    """By a gateway that hears of it from the database alone."""
    made = client.post("/v1/keys", json={"name": "x", "role": "viewer"}).json()
    assert client.get(WHO, headers=bearer(made["key"])).status_code == 200
    elsewhere = Database.of(settings)
    with elsewhere.unit_of_work() as session:
        (row,) = [
            row
            for row in service.list_keys(session, _ADMIN, after=None, limit=10)
            if str(row.id) == made["id"]
        ]
        service.revoke_key(session, _ADMIN, row.id)
    elsewhere.close()
    refused = lambda: client.get(WHO, headers=bearer(made["key"])).status_code != 200  # noqa: E731
    wait_for(refused, "the other gateway's refusal", 30)


_ADMIN = Principal(None, "test", "admin")


@pytest.mark.parametrize(
    ("trusted", "expected"), [({}, 429), ({"SHOTLINE_TRUSTED_PROXIES": "127.0.0.1"}, 401)]
)
def test_whom_a_proxy_speaks_for_is_believed_where_it_is_trusted_alone(
    settings: Settings,
    database_kind: str,
    tmp_path: Path,
    trusted: Mapping[str, str],
    expected: int,
) -> None:
    if database_kind != "sqlite":
        pytest.skip("which database it is makes no difference")
    environment = {
        "SHOTLINE_AUTH_FAILURES": str(ALLOWED),
        "SHOTLINE_AUTH_FAILURE_SECONDS": "3600",
        **trusted,
    }
    with (
        redis_server(tmp_path) as queue,
        gateway({**environment_of(settings, queue), **environment}, tmp_path / "log") as address,
    ):
        for number in range(ALLOWED + 1):
            headers = bearer(wrong(number)) | {"X-Forwarded-For": f"192.0.2.{number}"}
            response = httpx2.get(f"{address}{WHO}", headers=headers)
        assert response.status_code == expected
    shown = (tmp_path / "log").read_text()
    assert ("192.0.2.1" in shown) == bool(trusted)
