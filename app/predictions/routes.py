"""`POST …/predict`."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query, Request, Response

from app.core import errors
from app.core.access import Principal
from app.core.media_types import ARCHIVE_TYPES
from app.http.authentication import Operator
from app.http.examples import example_of
from app.http.gateway import GatewayDep
from app.http.leaving import caller_of
from app.http.numbers import Whole
from app.http.problems import problem_of, responses
from app.http.routing import DirectRoute
from app.predictions.incoming import Origin
from app.predictions.intake import make_origin, read_intake
from app.predictions.model import ResidentModel
from app.predictions.provider import PredictionsDep
from app.predictions.schemas import PredictIn, PredictionOut, ResultsOut
from app.predictions.service import Question
from app.predictions.serving import NDJSON, Form, Once, serve
from models.errors import ArtifactMismatch, BadImage, BadInput

router = APIRouter(prefix="/v1", tags=["predictions"], route_class=DirectRoute)

_DAY_MS = 86_400_000
_COMPACT_EXAMPLE = "2;0.9400;7;certain;scratch"


@dataclass(frozen=True)
class Call:
    """What a request says beside its body.

    Attributes:
        top_k: so many classes are listed; None for all.
        deadline: of `time.monotonic`.
        key: the Idempotency-Key.
        form: of the answer.
        origin: what the headers say of all its images.
    """

    top_k: int | None
    deadline: float
    key: str | None
    form: Form
    origin: Origin


async def _call(
    top_k: Annotated[
        Whole | None, Query(ge=1, le=1000, description="List so many classes; all by default.")
    ] = None,
    deadline_ms: Annotated[
        Whole | None,
        Query(
            ge=1,
            le=_DAY_MS,
            description="Answer 504 rather than begin with an image later than this.",
        ),
    ] = None,
    format: Annotated[  # noqa: A002 - what the caller writes
        Literal["json", "compact"],
        Query(description="`compact`: `code;probability;version;label`, at most 254 bytes."),
    ] = "json",
    accept: Annotated[str, Header(include_in_schema=False)] = "*/*",
    idempotency_key: Annotated[
        str | None, Header(description="The same key, the same answer, for 24 hours.")
    ] = None,
    image_id: Annotated[str | None, Header(description="Echoed in the answer.")] = None,
    part_id: Annotated[str | None, Header(description="Kept, searchable.")] = None,
    station: Annotated[str | None, Header(description="Kept, searchable.")] = None,
    captured_at: Annotated[str | None, Header(description="ISO 8601 with a zone.")] = None,
) -> Call:
    said = (image_id, part_id, station, captured_at)
    return Call(
        top_k,
        math.inf if deadline_ms is None else time.monotonic() + deadline_ms / 1000,
        idempotency_key,
        Form(compact=format == "compact", lines=_lines(accept)),
        make_origin(*(None if text is None else _utf8(text) for text in said)),
    )


def _lines(accept: str) -> bool | None:
    """Say whether lines are asked for; None where neither they nor JSON are named."""
    if NDJSON in accept:
        return True
    return False if "application/json" in accept else None


CallDep = Annotated[Call, Depends(_call)]


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Return `schema` with what it refers to written out: it stands outside the components."""
    parts = schema.pop("$defs", {})

    def inline(node: Any) -> Any:
        if isinstance(node, dict):
            if "$ref" in node:
                return inline(parts[node["$ref"].rsplit("/", 1)[-1]])
            return {name: inline(value) for name, value in node.items()}
        return [inline(value) for value in node] if isinstance(node, list) else node

    inlined: dict[str, Any] = inline(schema)
    return inlined


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ONE = example_of(PredictionOut.model_json_schema(), PredictionOut.model_json_schema()["$defs"])
_BAD = problem_of(BadImage("The image has 0 bytes.", fix="Send the file again; it arrived empty."))
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _BINARY | {"example": "(the bytes of a JPEG, PNG, WebP, BMP or TIFF)"},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {
                            "type": "array",
                            "items": _BINARY["schema"],
                            "description": "One file or several, each with a file name.",
                        },
                        **{
                            name: {"type": "string", "description": "One for all, or one for each."}
                            for name in ("image_id", "part_id", "station", "captured_at")
                        },
                    },
                    "required": ["image"],
                },
                "example": {"image": ["part.jpg"], "image_id": "cam3-1", "part_id": "SN-4711"},
            },
            "application/json": {"schema": _inlined(PredictIn.model_json_schema())},
            **{
                kind: _BINARY | {"example": "(the bytes of an archive of photographs)"}
                for kind in sorted(ARCHIVE_TYPES)
            },
        },
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PredictionOut | ResultsOut,
        "description": "One image: the prediction. Several: `results` in the order of the request,"
        " or a line for each; an archive gets lines unless JSON is asked for.",
        "content": {
            "application/json": {
                "examples": {
                    "one": {"summary": "One image", "value": _ONE},
                    "several": {
                        "summary": "Several, one of which is no image",
                        "value": {"results": [_ONE, _BAD | {"image_id": "cam3-2"}]},
                    },
                }
            },
            "text/plain": {"schema": {"type": "string"}, "example": _COMPACT_EXAMPLE},
            NDJSON: {
                "schema": {"type": "string"},
                "example": '{"index":1,"image_id":"lot 7/2.png","decision":"ok",…}\n'
                '{"index":0,"image_id":"lot 7/1.png","status":422,…}\n',
            },
        },
    },
    **responses(
        errors.BadRequest,
        BadInput,
        BadImage,
        errors.BadUpload,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        ArtifactMismatch,
        errors.TooSlow,
        errors.TooLarge,
        errors.UnsupportedType,
        errors.Unavailable,
        errors.DeadlinePassed,
    ),
}


def _route(path: str, summary: str) -> Callable[[Any], Any]:
    return router.post(
        path,
        summary=summary,
        responses=_ANSWERS,
        openapi_extra=_BODY,
        response_class=Response,
    )


@_route("/projects/{project}/predict", "Decide on images by what is in production")
async def predict(
    project: UUID,
    request: Request,
    principal: Operator,
    call: CallDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> Response:
    """Decide on one image or several with the version that the alias `production` names.

    Several are answered in the order of the request; with `Accept: application/x-ndjson` each by a
    line of its own as soon as it is decided on. In the place of an image that cannot be decided on
    stands a problem.

    The files of a zip or tar are images whose `image_id` is the path in the archive. They are
    answered by lines; with `Accept: application/json` in their order.
    """
    model = await predictions.project_model(project)
    return await _serve(request, principal, call, gateway, predictions, model)


@_route("/models/{model}/predict", "Decide on images by one version")
async def predict_by_model(
    model: UUID,
    request: Request,
    principal: Operator,
    call: CallDep,
    gateway: GatewayDep,
    predictions: PredictionsDep,
) -> Response:
    """Decide on one image or several with a version, whatever is in production."""
    found = await predictions.model(model, principal)
    return await _serve(request, principal, call, gateway, predictions, found)


async def _serve(
    request: Request,
    principal: Principal,
    call: Call,
    gateway: GatewayDep,
    predictions: PredictionsDep,
    model: ResidentModel,
) -> Response:
    model.check_encoder(predictions.batcher.encoder())  # before the body is read
    settings = gateway.settings
    intake = await read_intake(
        request,
        call.origin,
        settings.limits,
        settings.scratch_folder,
        predictions.threads,
        predictions.spare,
    )
    once = None
    if call.key is not None:
        once = Once(f"{principal.key_id} {request.url.path}", call.key)
    question = Question(model, principal, call.top_k, call.deadline)
    return await serve(predictions, intake, question, call.form, once, caller_of(request.scope))


def _utf8(header: str) -> str:
    """Return a header in the UTF-8 that clients mean; HTTP itself reads it as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except (UnicodeEncodeError, UnicodeDecodeError):
        return header
