"""Asserting problem+json, field by field."""

from typing import Any

from httpx2 import Response


def assert_problem(
    response: Response,
    status: int,
    slug: str,
    *,
    names: str | tuple[str, ...] = (),
    field: str | None = None,
) -> dict[str, Any]:
    """Assert RFC 9457 with our fields and that `detail` has `names`; return the problem."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:shotline:problem:{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["fix"]
    assert problem["request_id"] == response.headers["x-request-id"]
    if field is not None:
        assert problem["field"] == field
    for name in (names,) if isinstance(names, str) else names:
        assert name in problem["detail"]
    assert "Traceback" not in response.text
    return problem
