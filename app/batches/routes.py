"""`/v1/projects/{project}/batches` and `/v1/batches`."""

from contextlib import ExitStack
from functools import partial
from typing import Annotated
from uuid import UUID

import anyio
from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import StreamingResponse

from app.batches import service
from app.batches.intake import open_sent, store_images
from app.batches.parquet import read_chunks, write_parquet
from app.batches.repository import BatchRow
from app.batches.results import Result, labels_of
from app.batches.schemas import BATCH_BODY, RESULTS, BatchOut
from app.batches.service import ResultFormat
from app.core import errors
from app.core.access import Principal
from app.core.storage import keep_young, swept
from app.http.authentication import Operator, Viewer
from app.http.gateway import Gateway, GatewayDep, ReaderDep, SessionDep
from app.http.numbers import Whole
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.http.spool import SpooledBody, spool
from app.images.form import read_sent
from models.errors import BadInput, StorageFull

router = APIRouter(prefix="/v1", tags=["batches"], route_class=Route)

_MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
    "parquet": "application/vnd.apache.parquet",
}


@router.post(
    "/projects/{project}/batches",
    status_code=status.HTTP_202_ACCEPTED,
    summary="Have many images decided on in the background",
    responses=responses(
        errors.BadRequest,
        BadInput,
        errors.BadUpload,
        errors.Conflict,
        errors.Forbidden,
        errors.NotFound,
        errors.TooLarge,
        errors.UnsupportedType,
        StorageFull,
    ),
    openapi_extra=BATCH_BODY,
)
async def start(
    project: UUID,
    request: Request,
    principal: Operator,
    gateway: GatewayDep,
    response: Response,
    model: Annotated[
        UUID | None, Query(description="A version's id; by default what is in production now.")
    ] = None,
    top_k: Annotated[
        Whole | None, Query(ge=1, le=1000, description="List so many classes; all by default.")
    ] = None,
) -> BatchOut:
    """Store photographs, or those of an archive, and queue a batch of them.

    The version is frozen: a promotion meanwhile changes nothing. Tunings go first. A file that is
    no usable image is not refused; its problem stands in its place in the results.
    """
    # Before the body is read: nobody should send a gigabyte that nothing can decide on.
    version_id = await gateway.read(
        lambda reader: service.choose_version(reader, principal, project, model).id
    )
    body = await spool(request, gateway.settings.scratch_folder, room=gateway.disk.require_room)
    content_type = request.headers.get("content-type", "")
    take = partial(
        _take, gateway, principal, project, body, content_type, version_id=version_id, top_k=top_k
    )
    try:
        row = await anyio.to_thread.run_sync(take, limiter=gateway.upload_limiter)
    finally:
        body.close()
    response.headers["Location"] = f"/v1/batches/{row.id}"
    return BatchOut.of(row)


def _take(
    gateway: Gateway,
    principal: Principal,
    project: UUID,
    body: SpooledBody,
    content_type: str,
    *,
    version_id: UUID,
    top_k: int | None,
) -> BatchRow:
    settings = gateway.settings
    with ExitStack() as stack:
        sent = read_sent(body, content_type)
        files = open_sent(sent, stack, settings.limits, settings.scratch_folder)
        images = store_images(files, gateway.disk.guarded(gateway.storage), settings.limits)
    if keep_young(gateway.storage, {row["sha256"] for row in images if row["sha256"]}):
        raise swept()
    with gateway.database.unit_of_work() as session:
        return service.start_batch(
            session,
            principal,
            project,
            version_id=version_id,
            top_k=top_k,
            images=images,
            queue=gateway.queue,
        )


@router.get(
    "/projects/{project}/batches",
    summary="List a project's batches",
    responses=responses(errors.NotFound),
)
def list_batches(
    project: UUID, principal: Viewer, session: ReaderDep, page: PageDep
) -> Page[BatchOut]:
    """List batches in the order they were asked for."""
    rows = service.list_batches(session, principal, project, after=page.after, limit=page.fetch)
    return page.page(rows, BatchOut.of)


@router.get("/batches/{batch}", summary="Show a batch", responses=responses(errors.NotFound))
def show(batch: UUID, principal: Viewer, session: ReaderDep) -> BatchOut:
    """Show a batch: its state, and how far it is."""
    return BatchOut.of(service.get_batch(session, principal, batch))


@router.post(
    "/batches/{batch}/cancel",
    summary="Cancel a batch",
    responses=responses(errors.Conflict, errors.Forbidden, errors.NotFound),
)
def cancel(batch: UUID, principal: Operator, session: SessionDep) -> BatchOut:
    """Cancel a batch; a running one stops within two seconds. What is done can still be had."""
    return BatchOut.of(service.cancel_batch(session, principal, batch))


@router.delete(
    "/batches/{batch}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete a batch",
    responses=responses(errors.Conflict, errors.Forbidden, errors.NotFound),
)
def delete(batch: UUID, principal: Operator, session: SessionDep) -> None:
    """Delete a batch that has ended, with its images and results."""
    service.delete_batch(session, principal, batch)


@router.get(
    "/batches/{batch}/results",
    summary="A batch's results",
    response_class=StreamingResponse,
    responses=RESULTS
    | responses(errors.Conflict, errors.NotFound, errors.Unavailable, StorageFull),
)
def results(
    batch: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    format: Annotated[  # noqa: A002 - what the caller writes
        ResultFormat,
        Query(description="`parquet` at the end alone, and where the gateway has pyarrow."),
    ] = "csv",
) -> StreamingResponse:
    """Answer a line for each image, in the order of the batch.

    Before the end, and of a batch that was cancelled, `csv` and `ndjson` hold what is done; the
    file's name then says `partial`. Text that a spreadsheet would run begins with `'`.
    """
    row = service.get_batch(session, principal, batch)
    parts = service.result_parts(session, row, format)
    found = Result(gateway.storage, [part.sha256 for part in parts], labels_of(row))
    if format == "parquet":
        stream = read_chunks(write_parquet(found, gateway.settings.scratch_folder))
    else:
        stream = found.csv() if format == "csv" else found.ndjson()
    partial_ = "" if row.batch.state == "succeeded" else "-partial"
    name = f"batch-{batch}{partial_}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(stream, media_type=_MEDIA_TYPES[format], headers=headers)
