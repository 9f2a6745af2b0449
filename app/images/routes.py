"""`/v1/projects/{project}/images` and `/v1/images`."""

from contextlib import ExitStack
from functools import partial
from typing import Annotated, Any, cast
from urllib.parse import quote
from uuid import UUID

import anyio
from fastapi import APIRouter, Header, Query, Request, Response, status

from app.core import errors
from app.core.access import Principal
from app.core.media_types import MEDIA_TYPES
from app.core.tables import Split
from app.http.authentication import Engineer, Viewer
from app.http.gateway import Gateway, GatewayDep, ReaderDep, SessionDep
from app.http.numbers import Whole
from app.http.pagination import Page, PageDep
from app.http.problems import responses
from app.http.routing import Route
from app.http.spool import spool
from app.images import check, service, upload
from app.images.form import Upload, read_upload
from app.images.schemas import UPLOAD_BODY, ImageChange, ImageOut, UploadOut
from app.images.thumbnails import MAX_SIZE, MIN_SIZE, thumbnail
from app.projects import repository as projects
from app.projects import service as project_service
from app.projects.freeze import require_not_stopped
from models.errors import BadImage, BadInput, BadName, StorageFull

router = APIRouter(prefix="/v1", tags=["images"], route_class=Route)

# Bytes under an image's id never change.
_FOR_EVER = "private, max-age=31536000, immutable"


def _bytes_of(media_type: str) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "string", "format": "binary"}
    return {
        200: {"description": "The bytes", "content": {media_type: {"schema": schema}}},
        304: {"description": "The caller has them already (If-None-Match)"},
    }


@router.post(
    "/projects/{project}/images",
    summary="Upload images",
    responses=responses(
        errors.BadRequest,
        errors.BadUpload,
        BadImage,
        BadName,
        errors.BadReference,
        errors.Conflict,
        errors.Frozen,
        errors.ProjectFrozen,
        errors.NotFound,
        errors.TooLarge,
        errors.UnsupportedType,
        StorageFull,
    ),
    openapi_extra=UPLOAD_BODY,
)
async def upload_images(
    project: UUID,
    request: Request,
    principal: Engineer,
    gateway: GatewayDep,
) -> UploadOut:
    """Upload photographs of one class, or an archive with a folder for each class.

    Every file gets a verdict of its own. 422 where none can be used; then nothing is stored.
    """
    # Before the body is read: nobody should send a gigabyte to a project that is not there.
    await gateway.read(
        lambda reader: require_not_stopped(project_service.get_project(reader, principal, project))
    )
    query = {name: request.query_params.getlist(name) for name in request.query_params}
    content_type = request.headers.get("content-type", "")
    body = await spool(request, gateway.settings.scratch_folder, room=gateway.disk.require_room)
    try:
        return await anyio.to_thread.run_sync(
            lambda: _take(gateway, principal, project, read_upload(body, content_type, query)),
            limiter=gateway.upload_limiter,
        )
    finally:
        body.close()


def _take(gateway: Gateway, principal: Principal, project: UUID, found: Upload) -> UploadOut:
    settings, database = gateway.settings, gateway.database
    with ExitStack() as stack:
        files = found.open(stack, settings.limits, settings.scratch_folder)
        reader = stack.enter_context(database.reading())
        plan = upload.make_plan(
            reader,
            principal,
            project,
            files,
            create_classes=found.archive is not None,
            ok_names=found.options.ok,
        )
        names = {row.id: row.name for row in projects.classes(reader, [project])}
        storage = gateway.disk.guarded(gateway.storage)
        checked = check.check_files(
            reader, storage, settings.limits, project, files, names.__getitem__
        )
    upload.require_stored(gateway.storage, checked)
    with database.unit_of_work() as session:
        return UploadOut.of(upload.record(session, principal, plan, checked))


@router.get(
    "/projects/{project}/images",
    summary="List a project's images",
    responses=responses(errors.NotFound, errors.BadReference),
)
def list_images(
    project: UUID,
    principal: Viewer,
    session: ReaderDep,
    page: PageDep,
    label: Annotated[str | None, Query(max_length=200, description="A class's name.")] = None,
    split: Annotated[Split | None, Query()] = None,
    group: Annotated[str | None, Query(max_length=200)] = None,
    sha256: Annotated[str | None, Query(max_length=64)] = None,
) -> Page[ImageOut]:
    """List images in the order they came."""
    found = service.list_images(
        session,
        principal,
        project,
        label=label,
        split=split,
        group=group,
        sha256=sha256,
        after=page.after,
        limit=page.fetch,
    )
    return page.page(found, ImageOut.of)


@router.get("/images/{image}", summary="Show an image", responses=responses(errors.NotFound))
def show(image: UUID, principal: Viewer, session: ReaderDep) -> ImageOut:
    """Show what is known of an image."""
    return ImageOut.of(service.get_image(session, principal, image))


@router.patch(
    "/images/{image}",
    summary="Relabel an image",
    responses=responses(errors.NotFound, errors.BadReference, errors.Forbidden, BadInput),
)
def relabel(image: UUID, body: ImageChange, principal: Engineer, session: SessionDep) -> ImageOut:
    """Put an image under another class. Tunings that ran keep the label they ran with."""
    return ImageOut.of(service.relabel(session, principal, image, body.label))


@router.delete(
    "/images/{image}",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Delete an image",
    responses=responses(errors.NotFound, errors.Forbidden),
)
def delete(image: UUID, principal: Engineer, session: SessionDep) -> None:
    """Delete an image. Where a tuning ran on it the bytes stay, so that it can be run again."""
    service.delete_image(session, principal, image)


@router.get(
    "/images/{image}/content",
    summary="An image's bytes",
    response_class=Response,
    responses=_bytes_of("image/*") | responses(errors.NotFound, errors.Damaged),
)
def content(
    image: UUID,
    principal: Viewer,
    session: ReaderDep,
    gateway: GatewayDep,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer the bytes as they came."""
    row = service.get_image(session, principal, image).row
    headers = _cache_headers(row.sha256)
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    name = quote(row.file_name.rsplit("/", 1)[-1])
    headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
    data = gateway.storage.read(row.sha256)
    return Response(data, headers=headers, media_type=MEDIA_TYPES[row.format])


@router.get(
    "/images/{image}/thumbnail",
    summary="A small JPEG of an image",
    response_class=Response,
    responses=_bytes_of("image/jpeg") | responses(errors.NotFound, errors.Damaged),
)
async def small(
    image: UUID,
    principal: Viewer,
    gateway: GatewayDep,
    size: Annotated[Whole, Query(ge=MIN_SIZE, le=MAX_SIZE, description="Longest side.")] = 256,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer a JPEG that fits into `size` x `size`."""
    # The session is given back before the wait for a decoder.
    sha256 = await gateway.read(
        lambda session: service.get_image(session, principal, image).row.sha256
    )
    headers = _cache_headers(f"{sha256}-{size}")
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    make = partial(thumbnail, gateway.storage, gateway.settings.thumbnail_folder, sha256, size)
    # A full-size decode takes much memory: few at a time.
    data = cast("bytes", await anyio.to_thread.run_sync(make, limiter=gateway.decode_limiter))
    return Response(data, headers=headers, media_type="image/jpeg")


def _cache_headers(tag: str) -> dict[str, str]:
    return {"ETag": f'"{tag}"', "Cache-Control": _FOR_EVER}
