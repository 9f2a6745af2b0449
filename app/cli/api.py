"""The gateway as the command line sees it."""

import io
import ssl
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import httpx2

from models.classes import normalise_name
from models.errors import BadInput, ShotlineError

# An upload is answered once all its photographs are decoded, behind those of others.
_TIMEOUT = httpx2.Timeout(60.0, connect=5.0)
_UPLOAD_TIMEOUT = httpx2.Timeout(600.0, connect=5.0)
_POLL_SECONDS = 0.3
# A gateway that is started anew is back by then.
_PATIENCE, _PAUSE, _LONGEST_PAUSE = 120.0, 1.0, 10.0
# Of one request: the bar moves, a broken connection costs little, and the archive fits into memory.
_BATCH_FILES, _BATCH_BYTES = 64, 64 * 1024**2
_UNKNOWN_AUTHORITY = "CERTIFICATE_VERIFY_FAILED"
_AWAY = {502, 503, 504}
# What a request with a single file is refused with because of that file.
_OF_THE_FILE = {f"urn:shotline:problem:{it}" for it in ("bad-image", "conflict", "too-large")}

# Of gates: not asked for yet, waiting for a worker, or measured.
_UNDER_WAY = {None, "queued", "running"}

Json = dict[str, Any]
Labelled = tuple[str, Path]


class RequestFailed(ShotlineError):
    """The gateway did not answer, or answered with a problem.

    Args:
        answer: the problem, as it came.
        retry_after: seconds after which the gateway is worth another try, where it said so.
    """

    def __init__(
        self,
        problem: str,
        *,
        fix: str,
        field: str | None = None,
        answer: Json | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(problem, fix=fix, field=field)
        self.answer = answer or {}
        self.retry_after = retry_after


class GatewayAway(RequestFailed):
    """Nobody answered, or it was the proxy or a gateway that is just starting: worth a retry."""


class Api:
    """A connection to a gateway.

    Args:
        url: such as `http://127.0.0.1:8000`.
        key: the API key, none where authentication is off.
        ca_file: PEM file of who vouches for the gateway's certificate; by default those whom this
            machine trusts.

    Raises:
        BadInput: a key that cannot be one, or a file that holds no certificates.
    """

    def __init__(self, url: str, key: str | None, ca_file: Path | None = None) -> None:
        if key and not key.isascii():
            raise BadInput(
                f"The API key {key[:11]!r}… is none: it has letters that no key has.",
                fix="Give the whole key as it was printed, in SHOTLINE_KEY or with --key.",
                field="key",
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._url = url.rstrip("/")
        self._client = httpx2.Client(
            base_url=self._url,
            headers=headers,
            timeout=_TIMEOUT,
            verify=True if ca_file is None else _trusting(ca_file),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def call(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request.

        Raises:
            GatewayAway: nobody answers, or nobody that can.
            RequestFailed: the answer is a problem; its title and fix are kept.
        """
        try:
            answer = self._client.request(method, path, **options)
        except (httpx2.ReadTimeout, httpx2.WriteTimeout) as error:
            raise GatewayAway(
                f"The gateway at {self._url} was asked to {method} {path}, and does not answer.",
                fix="It may be busy: look into its log, then try again.",
                field="url",
            ) from error
        except httpx2.TransportError as error:
            if _UNKNOWN_AUTHORITY in str(error):
                raise RequestFailed(
                    f"Nobody whom this machine trusts vouches for the gateway at {self._url}:"
                    f" {error}.",
                    fix="Name its authority's PEM file in SHOTLINE_CA_FILE or with --ca-file, and"
                    " the gateway by the name that its certificate has.",
                    field="url",
                ) from error
            raise GatewayAway(
                f"No gateway answers at {self._url}: {error}.",
                fix="Start one with `shotline up`, or name another with --url.",
                field="url",
            ) from error
        if answer.is_error:
            raise _failed(answer)
        return answer

    def call_again(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send a request that may be sent twice, and again for as long as a restart takes.

        Between two tries it waits as long as the gateway asked for, up to a limit.

        Raises:
            RequestFailed: as above.
        """
        give_up_at = time.monotonic() + _PATIENCE
        while True:
            try:
                return self.call(method, path, **options)
            except RequestFailed as error:
                if not _passing(error) or time.monotonic() > give_up_at:
                    raise
                pause = _PAUSE if error.retry_after is None else error.retry_after
            time.sleep(min(pause, _LONGEST_PAUSE))

    def project(self, name: str) -> Json:
        """Return the project of that name; made where there is none."""
        if (found := self._named(name)) is not None:
            return found
        made: Json = self.call("POST", "/v1/projects", json={"name": name}).json()
        return made

    def project_id(self, project: str) -> str:
        """Return the id of the project of that name; an id is taken as it is.

        Raises:
            BadInput: there is none.
        """
        try:
            return str(UUID(project))
        except ValueError:
            pass
        found = self._named(project)
        if found is None:
            raise BadInput(
                f"The gateway at {self._url} has no project {project!r} that this API key may see.",
                fix="Check its name, or make one with `shotline push`.",
                field="project",
            )
        identifier: str = found["id"]
        return identifier

    def _named(self, name: str) -> Json | None:
        found: list[Json] = self.call("GET", "/v1/projects", params={"name": name}).json()["items"]
        return found[0] if found else None

    def upload(
        self,
        project: str,
        files: Sequence[Labelled],
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
        done = 0
        for batch in batches(files):
            labels = {normalise_name(label) for label, _ in batch}
            options = {"ok": [name for name in ok if normalise_name(name) in labels]}
            yield from self._upload(project, batch, {**options, "split": split})
            done += len(batch)
            progress(done, len(files))

    def _upload(self, project: str, batch: Sequence[Labelled], options: Json) -> list[Json]:
        """Send one archive; that none of its files can be used is a verdict on each, too."""
        try:
            answer = self.call_again(
                "POST",
                f"/v1/projects/{project}/images",
                files={"archive": ("photographs.tar", _tar(batch), "application/x-tar")},
                data=options,
                timeout=_UPLOAD_TIMEOUT,
            ).json()
        except RequestFailed as error:
            if "results" in error.answer:
                answer = error.answer
            elif len(batch) == 1 and error.answer.get("type") in _OF_THE_FILE:
                ((label, path),) = batch
                verdict = {"file": f"{label}/{path.name}", "verdict": "rejected", "label": label}
                return [{**verdict, "detail": error.problem, "fix": error.fix}]
            else:
                raise
        results: list[Json] = answer["results"]
        return results

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
            tuning = self.call_again("GET", f"/v1/tunings/{tuning['id']}").json()
            progress(tuning)
        if tuning["state"] != "succeeded":
            failure = tuning["failure"] or {
                "problem": "The tuning was cancelled.",
                "fix": "Start it again.",
            }
            raise RequestFailed(failure["problem"], fix=failure["fix"])
        return tuning

    def promote(
        self,
        project: str,
        version: int,
        *,
        reason: str | None = None,
        override: str | None = None,
        progress: Callable[[Json], None] = lambda _: None,
    ) -> Json:
        """Make the version the one that answers, once its gates have been run; return the alias.

        Args:
            project: its id.
            version: its number.
            reason: why; kept.
            override: why it is promoted although its gates say no; of an admin.
            progress: called with the gates now and then while they are run.

        Raises:
            RequestFailed: it does not pass them, or they could not be run.
        """
        path = f"/v1/projects/{project}/aliases/production"
        body = {"version": version, "reason": reason, "override": override}
        given = {name: value for name, value in body.items() if value is not None}
        for last in (False, False, True):  # not run yet, then run, then judged
            try:
                alias: Json = self.call_again("PUT", path, json=given).json()
            except RequestFailed as error:
                gates = error.answer.get("gates")
                if last or not gates or gates["state"] not in _UNDER_WAY:
                    raise
                self._wait_for_gates(gates["model"], progress)
            else:
                break
        return alias

    def _wait_for_gates(self, model: str, progress: Callable[[Json], None]) -> None:
        address = f"/v1/models/{model}/gates"
        gates: Json = self.call_again("GET", address).json()
        while gates["state"] in {"queued", "running"}:
            progress(gates)
            time.sleep(_POLL_SECONDS)
            gates = self.call_again("GET", address).json()
        progress(gates)

    def rollback(self, project: str, *, reason: str | None = None) -> int:
        """Let production be what it was before; return that version's number."""
        body = {} if reason is None else {"reason": reason}
        back: int = self.call("POST", f"/v1/projects/{project}/rollback", json=body).json()[
            "version"
        ]
        return back

    def predict(
        self, project: str, image: bytes, *, image_id: str | None = None, top_k: int | None = None
    ) -> Json:
        """Ask for the decision on one photograph, under a key: it is recorded once.

        Args:
            project: its id.
            image: the file's bytes.
            image_id: what the decision is recorded under.
            top_k: so many classes are listed; None for all.

        Raises:
            RequestFailed: see `call_again`.
        """
        headers = {"Content-Type": "image/*", "Idempotency-Key": str(uuid4())}
        if image_id is not None:
            headers["Image-Id"] = image_id
        answer: Json = self.call_again(
            "POST",
            f"/v1/projects/{project}/predict",
            content=image,
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            params={} if top_k is None else {"top_k": top_k},
        ).json()
        return answer


def _trusting(ca_file: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(
            f"The file {ca_file} of certificates cannot be used: {error}.",
            fix="Give a PEM file in SHOTLINE_CA_FILE or with --ca-file.",
            field="ca_file",
        ) from error


def batches(files: Sequence[Labelled]) -> Iterator[list[Labelled]]:
    """Cut `files` into what one request takes; a file above its bytes goes alone."""
    batch: list[Labelled] = []
    size = 0
    for label, path in files:
        more = path.stat().st_size
        if batch and (len(batch) == _BATCH_FILES or size + more > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append((label, path))
        size += more
    if batch:
        yield batch


def _tar(files: Sequence[Labelled]) -> bytes:
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
    kind = GatewayAway if answer.status_code in _AWAY else RequestFailed
    said = answer.headers.get("Retry-After", "")
    after = float(said) if said.isdecimal() else None  # else it is a date, which no gateway sends
    try:
        problem = answer.json()
        detail = problem["detail"]
    except (ValueError, KeyError, TypeError):
        return kind(
            f"The gateway answered {answer.status_code}: {answer.text[:200]!r}.",
            fix="Look into its log.",
            retry_after=after,
        )
    fix = problem.get("fix", "See the gateway's documentation, /docs.")
    return kind(detail, fix=fix, field=problem.get("field"), answer=problem, retry_after=after)


def _passing(error: RequestFailed) -> bool:
    """Say whether the same request may get another answer: also while its first try is at work."""
    at_work = error.answer.get("status") == 409 and error.field == "Idempotency-Key"
    return at_work or isinstance(error, GatewayAway)
