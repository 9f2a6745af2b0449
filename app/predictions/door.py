"""Refuses predictions at the door while the house is full: before keys, routing and the body.

Under overload most requests are refused, and whatever a refusal costs is taken from the images
that are decided on.
"""

import re
import time

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.http.problems import problem_response
from app.predictions.service import Slots

log = structlog.get_logger(__name__)

# The addresses of predictions, as a pattern of the whole path.
PREDICT_PATH = r"/v1/(projects|models)/[^/]+/predict"

_PREDICT = re.compile(PREDICT_PATH)
_TELL_SECONDS = 1.0


class Door:
    """Middleware in front of the routes.

    Args:
        app: what comes after.
        slots: of the prediction path.
    """

    def __init__(self, app: ASGIApp, *, slots: Slots) -> None:
        self.app, self._slots = app, slots
        self._refused, self._told_at = 0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if not self._shut_for(scope):
            await self.app(scope, receive, send)
            return
        scope["quiet"] = True  # a line for each would be a flood when it can least be used
        self._tell()
        await problem_response(self._slots.refuse(1), scope.get("request_id"))(scope, receive, send)

    def _shut_for(self, scope: Scope) -> bool:
        return (
            self._slots.full
            and scope["type"] == "http"
            and scope["method"] == "POST"
            and _PREDICT.fullmatch(scope["path"]) is not None
        )

    def _tell(self) -> None:
        self._refused += 1
        if (now := time.monotonic()) >= self._told_at + _TELL_SECONDS:
            log.warning("predictions_refused", requests=self._refused)
            self._refused, self._told_at = 0, now
