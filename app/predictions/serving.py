"""Answers to a prediction request: one or many, JSON, NDJSON or compact, given once per key."""

import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import anyio
import structlog
from starlette.responses import Response, StreamingResponse

from app.http.problems import problem_of
from app.predictions.idempotency import StoredAnswer
from app.predictions.intake import Intake
from app.predictions.schemas import PredictionOut
from app.predictions.service import Outcome, Predictions, Question
from models.errors import BadInput

log = structlog.get_logger(__name__)

NDJSON = "application/x-ndjson"
COMPACT = "text/plain; charset=utf-8"
_JSON = "application/json"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Form:
    """How the caller wants the answer."""

    compact: bool = False
    lines: bool = False


@dataclass(frozen=True)
class Once:
    """An Idempotency-Key and where it counts."""

    scope: str
    key: str


async def serve(
    predictions: Predictions, intake: Intake, question: Question, form: Form, once: Once | None
) -> Response:
    """Answer a request; the intake is closed when the answer is out.

    Raises:
        ShotlineError: the one image cannot be decided on, or the request cannot be taken.
    """
    with ExitStack() as stack:
        stack.push(intake.stack.pop_all())
        _check_form(intake, form)
        known = await _begin(predictions, intake, question, form, once)
        if known is not None:
            return _response(known, replayed=True)
        if once is not None:
            stack.callback(_forget, predictions, once)
        stack.enter_context(predictions.slots_for(intake.images))
        if form.lines:
            held = stack.pop_all()
            stream = _lines(predictions, intake, question, once, held)
            return StreamingResponse(stream, media_type=NDJSON)
        answer = await _answer(predictions, intake, question, form)
        if once is not None:
            await _remember(predictions, once, answer)
        return _response(answer)


async def _answer(
    predictions: Predictions, intake: Intake, question: Question, form: Form
) -> StoredAnswer:
    if intake.single:
        found = await predictions.predict(intake.images[0], question)
        if form.compact:
            return StoredAnswer(200, COMPACT, found.compact().encode())
        return StoredAnswer(200, _JSON, found.model_dump_json().encode())
    results: list[Any] = [None] * len(intake.images)
    async for place, outcome in predictions.each(intake.images, question):
        results[place] = _as_json(intake, place, outcome)
    return StoredAnswer(200, _JSON, _dump({"results": results}))


async def _lines(
    predictions: Predictions, intake: Intake, question: Question, once: Once | None, held: ExitStack
) -> AsyncIterator[bytes]:
    sent = []
    with held:
        async for place, outcome in predictions.each(intake.images, question):
            line = _dump({"index": place} | _as_json(intake, place, outcome)) + b"\n"
            if once is not None:
                sent.append(line)
            yield line
        if once is not None:
            await _remember(predictions, once, StoredAnswer(200, NDJSON, b"".join(sent)))


def _as_json(intake: Intake, place: int, outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, PredictionOut):
        return outcome.model_dump(mode="json")
    return problem_of(outcome) | {"image_id": intake.images[place].origin.image_id}


def _check_form(intake: Intake, form: Form) -> None:
    if form.compact and not intake.single:
        raise BadInput(
            f"A compact answer is of one image; {len(intake.images)} were sent.",
            fix="Send one image, or leave format=compact out.",
            field="format",
        )


async def _begin(
    predictions: Predictions, intake: Intake, question: Question, form: Form, once: Once | None
) -> StoredAnswer | None:
    if once is None:
        return None
    fingerprint = await anyio.to_thread.run_sync(
        intake.fingerprint, question.top_k, form, limiter=predictions.threads
    )
    begin = partial(predictions.answers.begin, once.scope, once.key, fingerprint)
    return await _unless_broken(predictions, begin)


async def _remember(predictions: Predictions, once: Once, answer: StoredAnswer) -> None:
    finish = partial(predictions.answers.finish, once.scope, once.key, answer)
    await _unless_broken(predictions, finish)


def _forget(predictions: Predictions, once: Once) -> None:
    """Free the key where no answer was remembered under it."""
    try:
        predictions.answers.forget_unfinished(once.scope, once.key)
    except sqlite3.Error as error:
        log.warning("idempotency_store_failing", error=str(error))


async def _unless_broken(predictions: Predictions, action: Callable[[], Result]) -> Result | None:
    """Go on without a memory where the store fails: the line needs its decision."""
    try:
        return await anyio.to_thread.run_sync(action, limiter=predictions.threads)
    except sqlite3.Error as error:
        predictions.metrics.idempotency_lost.inc()
        log.warning("idempotency_store_failing", error=str(error))
        return None


def _response(answer: StoredAnswer, *, replayed: bool = False) -> Response:
    headers = {"Idempotent-Replayed": "true"} if replayed else {}
    return Response(answer.body, answer.status, headers, answer.media_type)


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str).encode()
