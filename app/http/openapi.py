"""What the OpenAPI document says of the service as a whole."""

from typing import Any

from fastapi import FastAPI

from app.core.errors import TooManyFailures, Unauthenticated
from app.http.examples import example_of
from app.http.problems import KINDS, MEDIA_TYPE, Problem

_DESCRIPTION = """\
Shotline adapts a CLIP vision-language model to a production line from a handful of labelled
photographs, on the factory's own machine.

Every error is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `fix`
and, where one is at fault, `field`. Lists are pages: send `next_cursor` as `cursor`. Times are UTC,
ids sort by time. Send `Authorization: Bearer sl_…` with every request under `/v1`.
"""

_TAGS = {
    "projects": "One inspection task each: its classes, images, tunings and model versions.",
    "classes": "The labels of a project, in their order.",
    "images": "Uploaded photographs.",
    "tunings": "Jobs that turn images into a model version.",
    "models": "Tuned versions, their aliases, promotion and rollback.",
    "predictions": "What the line asks.",
    "feedback": "What people say of predictions, and what is learnt from it.",
    "batches": "Many images at once, decided on in the background.",
    "keys": "API keys.",
    "audit": "The record of every change.",
    "health": "For those who watch the box.",
}


def describe(app: FastAPI) -> None:
    """Complete the document: problems, tags, and the 401 and 429 that every key may meet."""
    app.openapi_tags = [{"name": name, "description": text} for name, text in _TAGS.items()]
    app.description = _DESCRIPTION
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(generate())
        return generate()

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete_operation(operation)
            _add_examples(operation, schemas)


def _add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give every JSON body, asked or answered, a whole example."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        content = body.get("content", {}).get("application/json")
        if content and not content.keys() & {"example", "examples"}:
            content["example"] = example_of(content["schema"], schemas)


def _complete_operation(operation: dict[str, Any]) -> None:
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422", "")):
        answers["422"] = _problem("Bad input")
    if operation.get("security"):
        for met in (Unauthenticated, TooManyFailures):
            answers.setdefault(str(KINDS[met].status), _problem(KINDS[met].title))
    answers.setdefault("default", _problem("Any other error"))


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}
