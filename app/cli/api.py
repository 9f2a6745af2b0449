"""The gateway as the command line sees it."""

import io
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx2

from models.errors import ShotlineError

_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_POLL_SECONDS = 0.3
# Files in one request: the bar moves, and a broken connection costs little.
_BATCH = 64

Json = dict[str, Any]


class RequestFailed(ShotlineError):
    """The gateway did not answer, or answered with a problem."""


class Api:
    """A connection to a gateway.

    Args:
        url: such as `http://127.0.0.1:8000`.
        key: the API key, none where authentication is off.
    """

    def __init__(self, url: str, key: str | None) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url.rstrip("/")
        self._client = httpx2.Client(base_url=self._url, headers=headers, timeout=_TIMEOUT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request.

        Raises:
            RequestFailed: nobody answers, or the answer is a problem; its title and fix are kept.
        """
        try:
            answer = self._client.request(method, path, **options)
        except httpx2.TransportError as error:
            raise RequestFailed(
                f"No gateway answers at {self._url}: {error}.",
                fix="Start one with `shotline up`, or name another with --url.",
                field="url",
            ) from error
        if answer.is_error:
            raise _failed(answer)
        return answer

    def project(self, name: str) -> Json:
        """Return the project of that name; made where there is none."""
        found: list[Json] = self.call("GET", "/v1/projects", params={"name": name}).json()["items"]
        if found:
            return found[0]
        made: Json = self.call("POST", "/v1/projects", json={"name": name}).json()
        return made

    def upload(
        self,
        project: str,
        files: Sequence[tuple[str, Path]],
        *,
        ok: Sequence[str] = (),
        split: str = "train",
        progress: Callable[[int, int], None],
    ) -> Iterator[Json]:
        """Send photographs as archives with a folder per class; yield the verdict on each.

        Args:
            project: its id.
            files: the class and the path of each.
            ok: classes that get the role `ok` where they are made.
            split: `train` or `holdout`.
            progress: called with how many of how many are sent.
        """
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            answer = self.call(
                "POST",
                f"/v1/projects/{project}/images",
                files={"archive": ("photographs.tar", _tar(batch), "application/x-tar")},
                data={"ok": list(ok), "split": split},
            )
            yield from answer.json()["results"]
            progress(start + len(batch), len(files))

    def tune(
        self, project: str, *, recipe: Json, seed: int, progress: Callable[[Json], None]
    ) -> Json:
        """Start a tuning and wait for its end; `progress` is called with it now and then.

        Raises:
            RequestFailed: the tuning failed or was cancelled.
        """
        body = {"recipe": recipe, "seed": seed}
        tuning: Json = self.call("POST", f"/v1/projects/{project}/tunings", json=body).json()
        while tuning["state"] in {"queued", "running"}:
            time.sleep(_POLL_SECONDS)
            tuning = self.call("GET", f"/v1/tunings/{tuning['id']}").json()
            progress(tuning)
        if tuning["state"] != "succeeded":
            failure = tuning["failure"] or {
                "problem": "The tuning was cancelled.",
                "fix": "Start it again.",
            }
            raise RequestFailed(failure["problem"], fix=failure["fix"])
        return tuning

    def promote(self, project: str, version: int) -> None:
        """Make the version the one that answers."""
        path = f"/v1/projects/{project}/aliases/production"
        self.call("PUT", path, json={"version": version})

    def predict(self, project: str, image: bytes) -> Json:
        """Ask for the decision on one photograph."""
        answer: Json = self.call(
            "POST",
            f"/v1/projects/{project}/predict",
            content=image,
            headers={"Content-Type": "image/*"},
        ).json()
        return answer


def _tar(files: Sequence[tuple[str, Path]]) -> bytes:
    """Pack photographs as they are, each into the folder of its class."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for label, path in files:
            entry = tarfile.TarInfo(f"{label}/{path.name}")
            entry.size = path.stat().st_size
            with path.open("rb") as content:
                archive.addfile(entry, content)
    return buffer.getvalue()


def _failed(answer: httpx2.Response) -> RequestFailed:
    try:
        problem = answer.json()
        detail = problem["detail"]
    except (ValueError, KeyError):
        return RequestFailed(
            f"The gateway answered {answer.status_code}: {answer.text[:200]!r}.",
            fix="Look into its log.",
        )
    return RequestFailed(detail, fix=problem.get("fix", "See the gateway's documentation, /docs."))
