"""Decisions by a gateway on many photographs, a few requests at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from app.cli.api import Api, RequestFailed
from app.cli.decisions import Decided, bad, unreadable
from models.errors import ShotlineError
from models.names import TEXT_LENGTH, printable

# The gateway decodes one while another is on its way; more would only wait there.
_REQUESTS = 4
# Statuses that say something of the one photograph; any other holds for all of them.
_OF_THE_IMAGE = {413, 415, 422}


def ask(
    api: Api,
    project: str,
    images: Sequence[Path],
    *,
    top_k: int | None,
    decided: Callable[[], None],
) -> tuple[list[Decided], ShotlineError | None]:
    """Return what the gateway says of each photograph, in order, and what ended the asking.

    Args:
        api: the gateway.
        project: its id.
        images: paths.
        top_k: so many classes are listed for each; None for all.
        decided: called after each.
    """
    ended: ShotlineError | None = None
    with ThreadPoolExecutor(_REQUESTS, "ask") as threads:
        asked = [threads.submit(_ask, api, project, path, top_k) for path in images]
        try:
            for future in as_completed(asked):
                future.result()
                decided()
        except RequestFailed as error:
            ended = error
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
    # Also of those that were on their way when another ended the asking.
    answered = [future for future in asked if not future.cancelled()]
    return [future.result() for future in answered if future.exception() is None], ended


def _ask(api: Api, project: str, path: Path, top_k: int | None) -> Decided:
    try:
        data = path.read_bytes()
    except OSError as error:
        return unreadable(path, error)
    try:
        return Decided(path, api.predict(project, data, image_id=_id_of(path), top_k=top_k))
    except RequestFailed as error:
        if error.answer.get("status") not in _OF_THE_IMAGE:
            raise
        return bad(path, error)


def _id_of(path: Path) -> str:
    """Return the path as an image's id; of a long one the end, which tells more."""
    shown = printable(str(path), len(str(path))).strip() or path.name
    return shown if len(shown) <= TEXT_LENGTH else "…" + shown[1 - TEXT_LENGTH :]
