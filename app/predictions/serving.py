"""Answers to a prediction request: one or many, JSON, NDJSON or compact, given once per key."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import anyio
import structlog
from anyio import CancelScope
from starlette.requests import ClientDisconnect
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from app.http.leaving import Caller
from app.http.problems import kind_of, problem_of
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
    """How the caller wants the answer.

    Attributes:
        compact: as a line for a PLC; counts more than `lines`.
        lines: as NDJSON; None where the caller does not say, and the body decides.
    """

    compact: bool = False
    lines: bool | None = None

    def for_body(self, intake: Intake) -> "Form":
        """Return the form with nothing left open."""
        return self if self.lines is not None else replace(self, lines=intake.archive)


@dataclass(frozen=True)
class Once:
    """An Idempotency-Key and where it counts."""

    scope: str
    key: str


async def serve(
    predictions: Predictions,
    intake: Intake,
    question: Question,
    form: Form,
    once: Once | None,
    caller: Caller,
) -> Response:
    """Answer a request; the intake is closed when the answer is out.

    Args:
        predictions: the prediction path.
        intake: the request's body.
        question: what is asked of each image.
        form: of the answer.
        once: the Idempotency-Key, where there is one.
        caller: who asks. What still waits when it leaves is not begun, but under an
            Idempotency-Key: what was recorded must be answered to the next try.

    Raises:
        ShotlineError: the one image cannot be decided on, or the request cannot be taken.
        ClientDisconnect: the caller left.
    """
    async with AsyncExitStack() as stack:
        stack.push(intake.stack.pop_all())
        form = form.for_body(intake)
        _check_form(intake, form)
        known = await _begin(predictions, intake, question, form, once)
        if known is not None:
            return _response(known, replayed=True)
        memory = _Memory(predictions, once)
        stack.push_async_callback(memory.close)
        stack.enter_context(predictions.slots_for(intake.images))
        if form.lines and not form.compact:  # what the address says counts more than Accept
            lines = _Lines(predictions, intake, question, memory)
            lines.start(stack.pop_all())
            return lines
        answering = _answer(predictions, intake, question, form, memory)
        return _response(await (answering if memory.wanted else _unless_left(answering, caller)))


async def _unless_left(answering: Coroutine[Any, Any, Result], caller: Caller) -> Result:
    """Return what `answering` does, which ends soon where the caller leaves."""
    work, left = asyncio.current_task(), False
    assert work is not None  # noqa: S101 - we run

    def stop() -> None:
        nonlocal left
        left = True
        work.cancel()

    caller.wait_for(stop)
    try:
        return await answering
    except asyncio.CancelledError:
        if left and work.uncancel() == 0:
            raise ClientDisconnect from None
        raise  # someone else stops us
    finally:
        caller.forget(stop)


class _Memory:
    """What becomes of the request's Idempotency-Key: an answer is remembered, or it is free again.

    An answer in which something failed for now is not: the same key is to get a better one.
    """

    def __init__(self, predictions: Predictions, once: Once | None) -> None:
        self._predictions, self._once = predictions, once
        self._kept, self._passing = False, False

    @property
    def wanted(self) -> bool:
        """Say whether there is a key to remember an answer under."""
        return self._once is not None

    def note(self, outcome: Outcome) -> None:
        """Look at what an image got."""
        if not isinstance(outcome, PredictionOut):
            self._passing |= kind_of(outcome).status >= 500

    async def keep(self, answer: StoredAnswer) -> None:
        """Remember the answer under the key, where there is one."""
        if self._once is None or self._passing:
            return
        self._kept = True
        finish = partial(self._predictions.answers.finish, self._once.scope, self._once.key, answer)
        await _unless_broken(self._predictions, finish)

    async def close(self) -> None:
        """Free the key where no answer was remembered under it."""
        if self._once is None or self._kept:
            return
        forget = partial(
            self._predictions.answers.forget_unfinished, self._once.scope, self._once.key
        )
        with CancelScope(shield=True):  # whoever asked may have left
            await _unless_broken(self._predictions, forget)


async def _answer(
    predictions: Predictions, intake: Intake, question: Question, form: Form, memory: _Memory
) -> StoredAnswer:
    if intake.single:
        found = await predictions.predict(intake.images[0], question)
        body = found.compact() if form.compact else found.model_dump_json()
        answer = StoredAnswer(200, COMPACT if form.compact else _JSON, body.encode())
    else:
        results: list[Any] = [None] * len(intake.images)
        async for place, outcome in predictions.each(intake.images, question):
            memory.note(outcome)
            results[place] = _as_json(intake, place, outcome)
        answer = StoredAnswer(200, _JSON, _dump({"results": results}))
    await memory.keep(answer)
    return answer


class _Lines(StreamingResponse):
    """NDJSON, a line for each image as soon as it is decided on.

    The work is a task of its own that holds the body and the slots. When the caller leaves it is
    cancelled, but not under an Idempotency-Key: what was recorded must be answered to the next try.
    """

    def __init__(
        self, predictions: Predictions, intake: Intake, question: Question, memory: _Memory
    ) -> None:
        super().__init__(self._sent(), media_type=NDJSON)
        self._predictions, self._intake = predictions, intake
        self._question, self._memory = question, memory
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()

    def start(self, held: AsyncExitStack) -> None:
        """Start to work; `held` is closed at the end."""
        self._work = self._predictions.keep_running(self._decide(held))

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            if not self._memory.wanted:
                self._work.cancel()

    async def _sent(self) -> AsyncIterator[bytes]:
        while (line := await self._lines.get()) is not None:
            yield line
        await self._work  # raises what nobody foresaw

    async def _decide(self, held: AsyncExitStack) -> None:
        made = []
        try:
            async with (
                held,
                aclosing(self._predictions.each(self._intake.images, self._question)) as outcomes,
            ):
                async for place, outcome in outcomes:
                    self._memory.note(outcome)
                    shown = {"index": place} | _as_json(self._intake, place, outcome)
                    made.append(_dump(shown) + b"\n")
                    self._lines.put_nowait(made[-1])
                await self._memory.keep(StoredAnswer(200, NDJSON, b"".join(made)))
        finally:
            self._lines.put_nowait(None)


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
