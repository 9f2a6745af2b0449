"""Hostile files sent to a gateway, and artifacts given to their reader: refused, or truly good."""

import contextlib
import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.faults.corpus import Hostile, corpus
from benchmarks.faults.guarded import Guarded, guarded_gateway, photograph
from models.artifact import Artifact
from models.checkpoint import Checkpoint
from models.errors import BadImage, ShotlineError
from models.imaging import check_image

_FILES, _QUICK_FILES = 3_000, 300
_SEED = 20_261_126
_SECONDS = 5.0
# Beside what it held when it began: two uploads and two predictions of 50 megapixels.
_MORE_MB = 1_500
_PATIENCE = 60.0
_READERS = 100  # artifacts that one process reads


@dataclass
class _Tally:
    """What became of the files that were sent."""

    sent: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_name: str = ""
    broken: list[str] = field(default_factory=list)

    def note(self, place: str, hostile: Hostile, status: int, seconds: float) -> None:
        self.sent += 1
        self.statuses[f"{place} {hostile.kind} {status}"] += 1
        if seconds > self.slowest:
            self.slowest, self.slowest_name = seconds, f"{place}: {hostile.name}"
        if not (status == 200 or 400 <= status < 500):
            self.broken.append(f"{place}: {hostile.name}: {status}")


def run(home: Path, *, quick: bool, report: Callable[[str], None]) -> dict[str, Any]:
    """Send each file to an upload and to a prediction, then ask for an ordinary decision."""
    tally = _Tally()
    with guarded_gateway(home) as guarded:
        pid, before = guarded.pid, guarded.peak_mb()
        good = _artifacts(guarded)
        files = list(corpus(_QUICK_FILES if quick else _FILES, _SEED, good))
        report(f"{len(files)} files; the gateway holds {before:.0f} MB")
        sent = [hostile for hostile in files if hostile.kind != "artifact"]
        with httpx2.Client(
            base_url=guarded.server.address, headers=guarded.home.headers, timeout=_PATIENCE
        ) as client:
            classes = [{"name": "part"}, {"name": "a"}]
            made = client.post("/v1/projects", json={"name": "hostile", "classes": classes})
            places = (
                f"/v1/projects/{made.raise_for_status().json()['id']}/images",
                guarded.home.lines[0].predict,
            )
            for number, hostile in enumerate(sent):
                _send(client, places, hostile, tally)
                if number % 500 == 499:
                    report(f"{number + 1} sent, the slowest answer took {tally.slowest:.1f} s")
            decided = client.post(
                guarded.home.lines[0].predict,
                content=photograph(5000),
                headers={"Content-Type": "image/png"},
            )
        peak, alive = guarded.peak_mb(), guarded.is_alive() and guarded.pid == pid
        log = (home / "gateway.log").read_text()
    read = _read_artifacts([it for it in files if it.kind == "artifact"], home)
    report(f"{read['files']} artifacts were read")
    return {
        "seed": _SEED,
        "files": len(files),
        "requests": tally.sent,
        "statuses": dict(sorted(tally.statuses.items())),
        "slowest": {"seconds": round(tally.slowest, 2), "file": tally.slowest_name},
        "memory_mb": {"before": round(before), "peak": round(peak)},
        "artifacts": read,
        "broken": tally.broken,
        "checks": {
            f"{_QUICK_FILES if quick else _FILES} files": len(files)
            == (_QUICK_FILES if quick else _FILES),
            "each is answered by 200 or 4xx, and accepted only if it decodes": not tally.broken,
            f"each answer within {_SECONDS:g} s": tally.slowest <= _SECONDS,
            f"at most {_MORE_MB} MB more in memory": peak - before <= _MORE_MB,
            "no error that nobody foresaw": "unforeseen_error" not in log,
            "the same process decides on a photograph": alive and decided.status_code == 200,
            "each artifact is refused or is what its digest says": not read["broken"],
        },
    }


def _send(client: httpx2.Client, paths: Sequence[str], hostile: Hostile, tally: _Tally) -> None:
    for path in paths:
        place, begun = path.rpartition("/")[2], time.monotonic()
        try:
            answer = _ask(client, path, place, hostile)
        except httpx2.TransportError as error:
            tally.note(place, hostile, 0, time.monotonic() - begun)
            tally.broken.append(f"{place}: {hostile.name}: {error!r}")
            continue
        tally.note(place, hostile, answer.status_code, time.monotonic() - begun)
        if hostile.kind == "image" and answer.status_code == 200 and not _decodes(hostile.data):
            tally.broken.append(f"{place}: {hostile.name}: accepted, and does not decode")


def _ask(client: httpx2.Client, path: str, place: str, hostile: Hostile) -> httpx2.Response:
    if hostile.kind == "archive":
        kind = "application/zip" if hostile.data[:2] == b"PK" else "application/x-tar"
        headers = {"Content-Type": kind, "Accept": "application/json"}
        return client.post(path, content=hostile.data, headers=headers)
    if place == "predict":
        return client.post(path, content=hostile.data, headers={"Content-Type": "image/png"})
    return client.post(
        path,
        files={"files": ("hostile.png", hostile.data, "image/png")},
        data={"label": "part"},
    )


def _decodes(data: bytes) -> bool:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # as the gateway does
        try:
            check_image(data)
        except BadImage:
            return False
    return True


def _artifacts(guarded: Guarded) -> list[bytes]:
    """Return the artifacts of the versions that are there."""
    found = []
    for line in guarded.home.lines:
        for version in line.versions:
            answer = httpx2.get(
                f"{guarded.server.address}/v1/models/{version.id}/artifact",
                headers=guarded.home.headers,
                timeout=30,
            )
            found.append(answer.raise_for_status().content)
    return found


def _read_artifacts(files: Sequence[Hostile], home: Path) -> dict[str, Any]:
    """Read each in a process of its own kind, whose end is seen; a few by `shotline inspect`."""
    folder = home / "artifacts"
    folder.mkdir()
    paths = []
    for number, hostile in enumerate(files):
        paths.append(folder / f"{number}.safetensors")
        paths[-1].write_bytes(hostile.data)
    verdicts: Counter[str] = Counter()
    broken: list[str] = []
    for start in range(0, len(paths), _READERS):
        part = [str(path) for path in paths[start : start + _READERS]]
        command = [sys.executable, "-m", "benchmarks.faults.hostile", *part]
        ended = _ended(command)
        if ended.returncode != 0:
            broken.append(f"{files[start].name} and after: {ended.stderr[-500:]}")
            continue
        said: dict[str, Any] = json.loads(ended.stdout)
        verdicts.update(said["verdicts"])
        broken += said["broken"]
    for path in paths[:: max(1, len(paths) // 10)]:
        ended = _ended([sys.executable, "-m", "app.cli.main", "inspect", str(path)])
        verdicts[f"inspect ends with {ended.returncode}"] += 1
        if ended.returncode not in {0, 2} or "Traceback" in ended.stderr:
            broken.append(f"inspect {path.name}: {ended.stderr[-500:]}")
    return {"files": len(files), "verdicts": dict(sorted(verdicts.items())), "broken": broken}


def _ended(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own programs
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )


def _verdict(data: bytes) -> str:
    """Read an artifact and, as one, a checkpoint; anything but our own errors is raised."""
    with contextlib.suppress(ShotlineError):
        Checkpoint.from_bytes(data)
    try:
        artifact = Artifact.from_bytes(data)
    except ShotlineError as error:
        return type(error).__name__
    return "read" if Artifact.from_bytes(artifact.to_bytes()).digest == artifact.digest else "other"


def main(paths: Sequence[str]) -> None:
    """Print what the readers made of the files, as JSON."""
    verdicts: Counter[str] = Counter()
    broken: list[str] = []
    for path in paths:
        begun = time.monotonic()
        try:
            verdicts[_verdict(Path(path).read_bytes())] += 1
        except Exception as error:  # noqa: BLE001 - each is a finding
            broken.append(f"{Path(path).name}: {error!r}")
        if time.monotonic() - begun > _SECONDS:
            broken.append(f"{Path(path).name}: {time.monotonic() - begun:.1f} s")
    print(json.dumps({"verdicts": verdicts, "broken": broken}))


if __name__ == "__main__":
    main(sys.argv[1:])
