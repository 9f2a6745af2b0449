"""Projects and their classes."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.core.database import Database
from app.core.ids import new_id
from app.core.tables import ApiKey, Image, KeyRole, Project, ProjectClass, Snapshot, Tuning
from tests.integration.conftest import MakeClient
from tests.integration.problems import assert_problem

TWO = [{"name": "good"}, {"name": "scratch"}]


def make(client: TestClient, name: str = "Housing", **body: Any) -> dict[str, Any]:
    response = client.post("/v1/projects", json={"name": name, "classes": TWO} | body)
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


def count(database: Database, table: type) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def tune(database: Database, project: str, state: str = "succeeded") -> None:
    """Write the row of a tuning, as if the project had been tuned."""
    with database.unit_of_work() as session:
        snapshot = Snapshot(
            project_id=UUID(project), digest=f"sha256:{state}", classes=[], image_count=0
        )
        session.add(snapshot)
        session.flush()
        session.add(
            Tuning(
                project_id=UUID(project),
                snapshot_id=snapshot.id,
                state=state,
                recipe={},
                seed=0,
                view={},
                backbone="starter",
            )
        )


def names(project: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in project["classes"]]


def test_make_and_show(client: TestClient) -> None:
    response = client.post("/v1/projects", json={"name": "Housing", "classes": TWO})
    made = response.json()
    assert response.headers["location"] == f"/v1/projects/{made['id']}"
    assert [(c["name"], c["prompt_name"], c["role"]) for c in made["classes"]] == [
        ("good", "good", "ok"),
        ("scratch", "scratch", "ng"),
    ]
    assert made["keep_images"] == "undecidable"
    assert made["view"]["resize"] == "fit"
    assert made["classes_frozen"] is False
    assert made["created_at"].endswith("Z")
    assert UUID(made["id"]).version == 7
    assert client.get(response.headers["location"]).json() == made


def test_names_of_any_language(client: TestClient) -> None:
    made = make(
        client,
        "外観検査 🔍",
        classes=[{"name": "良品", "prompt_name": "good part", "role": "ok"}, {"name": "🔥"}],
    )
    shown = client.get(f"/v1/projects/{made['id']}").json()
    assert shown["name"] == "外観検査 🔍"
    assert names(shown) == ["良品", "🔥"]
    assert shown["classes"][0]["role"] == "ok"


@pytest.mark.parametrize(
    "other", ["housing", "HOUSING ", "\N{FULLWIDTH LATIN CAPITAL LETTER H}ousing"]
)
def test_a_name_is_taken_after_normalisation(
    client: TestClient, database: Database, other: str
) -> None:
    make(client)
    response = client.post("/v1/projects", json={"name": other})
    assert_problem(response, 409, "duplicate", names=other.strip(), field="name")
    assert count(database, Project) == 1


def test_duplicate_classes_make_no_project(client: TestClient, database: Database) -> None:
    body = {"name": "x", "classes": [{"name": "Surface scratch"}, {"name": "surface_SCRATCH"}]}
    response = client.post("/v1/projects", json=body)
    assert_problem(response, 409, "duplicate", names="surface_SCRATCH", field="name")
    assert count(database, Project) == 0
    assert count(database, ProjectClass) == 0


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 101])
def test_names_that_cannot_be_used(client: TestClient, database: Database, name: str) -> None:
    assert_problem(client.post("/v1/projects", json={"name": name}), 422, "bad-name", field="name")
    body = {"name": "fine", "classes": [{"name": name}]}
    assert_problem(client.post("/v1/projects", json=body), 422, "bad-name", field="name")
    assert count(database, Project) == 0


def test_unknown_fields_are_refused(client: TestClient) -> None:
    response = client.post("/v1/projects", json={"name": "x", "clases": []})
    assert_problem(response, 422, "bad-input", field="clases")


@pytest.mark.parametrize(
    ("view", "status", "slug"),
    [
        ({"roi": [0.5, 0, 0.4, 1]}, 422, "bad-view"),
        ({"resize": "zoom"}, 422, "bad-input"),
        ({"decoder": "other/9"}, 422, "bad-view"),
    ],
)
def test_views_that_cannot_be_applied(
    client: TestClient, view: dict[str, Any], status: int, slug: str
) -> None:
    assert_problem(client.post("/v1/projects", json={"name": "x", "view": view}), status, slug)


def test_change_a_project(client: TestClient) -> None:
    made = make(client)
    url = f"/v1/projects/{made['id']}"
    changed = client.patch(
        url,
        json={"name": "Lid", "view": {"roi": [0.1, 0.1, 0.9, 0.9]}, "keep_images": "all"},
    ).json()
    assert (changed["name"], changed["keep_images"]) == ("Lid", "all")
    assert changed["view"]["roi"] == [0.1, 0.1, 0.9, 0.9]
    assert client.get(url).json() == changed
    make(client, "Other")
    assert_problem(client.patch(url, json={"name": "other"}), 409, "duplicate", names="other")
    assert client.get(url).json() == changed


def test_list_by_pages_and_by_name(client: TestClient) -> None:
    made = [make(client, f"p {n}")["id"] for n in range(3)]
    first = client.get("/v1/projects", params={"limit": 2}).json()
    assert [row["id"] for row in first["items"]] == made[:2]
    rest = client.get("/v1/projects", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [row["id"] for row in rest["items"]] == made[2:]
    assert rest["next_cursor"] is None
    assert client.get("/v1/projects", params={"name": "\0"}).json()["items"] == []
    named = client.get("/v1/projects", params={"name": "P_1"}).json()
    assert [row["id"] for row in named["items"]] == [made[1]]


def test_delete(client: TestClient, database: Database, make_client: MakeClient) -> None:
    made = make(client)
    make_client("viewer", UUID(made["id"]))
    tune(database, made["id"])
    assert client.delete(f"/v1/projects/{made['id']}").status_code == 204
    for table in (Project, ProjectClass, Snapshot, Tuning, Image):
        assert count(database, table) == 0
    assert count(database, ApiKey) == 1
    assert_problem(client.get(f"/v1/projects/{made['id']}"), 404, "not-found", names=made["id"])


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_project_at_work_is_not_deleted(
    client: TestClient, database: Database, state: str
) -> None:
    made = make(client)
    tune(database, made["id"], state)
    response = client.delete(f"/v1/projects/{made['id']}")
    assert_problem(response, 409, "conflict", names="Housing")
    assert count(database, Project) == 1


def test_unknown_project(client: TestClient) -> None:
    missing = str(new_id())
    for response in (
        client.get(f"/v1/projects/{missing}"),
        client.patch(f"/v1/projects/{missing}", json={"name": "x"}),
        client.delete(f"/v1/projects/{missing}"),
        client.post(f"/v1/projects/{missing}/classes", json={"name": "x"}),
        client.put(f"/v1/projects/{missing}/class-order", json={"classes": []}),
        client.get(f"/v1/projects/{missing}/images"),
    ):
        assert_problem(response, 404, "not-found", names=missing, field="project")


def test_no_uuid(client: TestClient) -> None:
    response = client.get("/v1/projects/housing")
    assert_problem(response, 422, "bad-input", names="housing", field="project")


def test_add_rename_reorder(client: TestClient) -> None:
    made = make(client)
    url = f"/v1/projects/{made['id']}/classes"
    added = client.post(url, json={"name": "凹み", "prompt_name": "dent", "role": "other"})
    assert added.status_code == 201
    assert names(added.json()) == ["good", "scratch", "凹み"]
    ids = [entry["id"] for entry in added.json()["classes"]]
    moved = client.put(
        url.replace("classes", "class-order"), json={"classes": [ids[2], ids[0], ids[1]]}
    ).json()
    assert names(moved) == ["凹み", "good", "scratch"]
    renamed = client.patch(f"{url}/{ids[1]}", json={"name": "deep scratch"}).json()
    assert names(renamed) == ["凹み", "good", "deep scratch"]
    assert renamed["classes"][2]["prompt_name"] == "scratch"
    assert client.get(f"/v1/projects/{made['id']}").json() == renamed
    taken = client.patch(f"{url}/{ids[1]}", json={"name": "GOOD"})
    assert_problem(taken, 409, "duplicate", names="GOOD", field="name")
    removed = client.delete(f"{url}/{ids[2]}").json()
    assert names(removed) == ["good", "deep scratch"]
    again = client.post(url, json={"name": "Good"})
    assert_problem(again, 409, "duplicate", names="Good", field="name")


def test_orders_that_are_none(client: TestClient) -> None:
    made = make(client)
    url = f"/v1/projects/{made['id']}/class-order"
    ids = [entry["id"] for entry in made["classes"]]
    missing = client.put(url, json={"classes": ids[:1]})
    assert_problem(missing, 422, "bad-input", names="scratch", field="classes")
    assert_problem(client.put(url, json={"classes": [ids[0]] * 2}), 422, "bad-input")
    stranger = str(new_id())
    unknown = client.put(url, json={"classes": [*ids, stranger]})
    assert_problem(unknown, 422, "bad-reference", names=stranger, field="classes")
    assert client.get(f"/v1/projects/{made['id']}").json() == made


def test_the_list_is_frozen_by_the_first_tuning(client: TestClient, database: Database) -> None:
    made = make(client)
    tune(database, made["id"])
    url = f"/v1/projects/{made['id']}/classes"
    ids = [entry["id"] for entry in made["classes"]]
    for response in (
        client.post(url, json={"name": "dent"}),
        client.put(url.replace("classes", "class-order"), json={"classes": ids[::-1]}),
        client.delete(f"{url}/{ids[0]}"),
    ):
        assert_problem(response, 409, "frozen", names="Housing", field="classes")
    shown = client.patch(f"{url}/{ids[1]}", json={"prompt_name": "scratched metal"}).json()
    assert shown["classes_frozen"] is True
    assert shown["classes"][1]["prompt_name"] == "scratched metal"
    assert names(shown) == names(made)


def test_a_class_of_another_project(client: TestClient) -> None:
    one, other = make(client, "one"), make(client, "other")
    stranger = other["classes"][0]["id"]
    response = client.patch(f"/v1/projects/{one['id']}/classes/{stranger}", json={"name": "x"})
    assert_problem(response, 404, "not-found", names=stranger, field="class")


def test_a_key_of_one_project_sees_no_other(client: TestClient, make_client: MakeClient) -> None:
    mine, other = make(client, "mine"), make(client, "other")
    insider = make_client("admin", UUID(mine["id"]))
    assert [p["name"] for p in insider.get("/v1/projects").json()["items"]] == ["mine"]
    assert insider.get(f"/v1/projects/{mine['id']}").status_code == 200
    for response in (
        insider.get(f"/v1/projects/{other['id']}"),
        insider.patch(f"/v1/projects/{other['id']}", json={"name": "x"}),
        insider.delete(f"/v1/projects/{other['id']}"),
        insider.get(f"/v1/projects/{other['id']}/images"),
    ):
        assert_problem(response, 404, "not-found", names=other["id"], field="project")
    assert_problem(insider.post("/v1/projects", json={"name": "x"}), 403, "forbidden")


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_may_not_change(client: TestClient, make_client: MakeClient, role: KeyRole) -> None:
    made = make(client)
    url = f"/v1/projects/{made['id']}"
    weak = make_client(role)
    assert weak.get(url).status_code == 200
    for response in (
        weak.post("/v1/projects", json={"name": "x"}),
        weak.patch(url, json={"name": "x"}),
        weak.post(f"{url}/classes", json={"name": "x"}),
        weak.post(f"{url}/images"),
    ):
        assert_problem(response, 403, "forbidden", names=role)
    assert_problem(make_client("engineer").delete(url), 403, "forbidden", names="admin")
