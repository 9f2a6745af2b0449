"""The image encoder in INT8, and for which versions it may answer.

INT8 changes features, so no version is answered with it that was not judged on its own held-out
images (`app.predictions.quantizing`). The verdict is kept beside the encoder that it speaks of.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from app.predictions.engines import machine
from app.predictions.engines.encoder import BackboneFacts, ImageEncoder, warm_up
from app.predictions.engines.onnx_engine import FILE, OnnxEncoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder
from app.predictions.engines.speed import fastest
from app.predictions.engines.store import EngineStore, check_files, checksums
from models.files import flush_folder, flush_to_disk
from models.imaging import PixelSpec

log = structlog.get_logger(__name__)

# Points of macro accuracy that INT8 may cost a version on its held-out images.
MOST_POINTS = 0.5
# Sums of shares such as 1/3 differ in the last digits.
_ROUNDING = 1e-9

_VERDICT = "verdict.json"


class Judgement(BaseModel):
    """How a version does in INT8.

    Attributes:
        project: the project's name.
        project_id: the project.
        version: its number.
        digest: of the version's artifact.
        images: held out, on which both were measured.
        fp32: macro accuracy in percent as it is served without INT8.
        int8: the same in INT8.
        changed: on so many of the images the label is another.
        least_cosine: the smallest cosine between a feature and its counterpart.
        refused: why the two were not measured.
    """

    model_config = ConfigDict(frozen=True)

    project: str
    project_id: UUID
    version: int
    digest: str
    images: int = 0
    fp32: float | None = None
    int8: float | None = None
    changed: int = 0
    least_cosine: float | None = None
    refused: str | None = None

    @property
    def cost(self) -> float | None:
        """Points that INT8 costs, negative where it gains; None where it was not measured."""
        if self.fp32 is None or self.int8 is None:
            return None
        return self.fp32 - self.int8

    @property
    def against(self) -> str | None:
        """What stands against INT8 for this version; None where it is accepted."""
        if self.refused is not None:
            return self.refused
        if self.cost is None or not self.cost <= MOST_POINTS + _ROUNDING:  # NaN is refused
            return f"INT8 costs {self.cost:.1f} points, and may cost {MOST_POINTS}"
        return None


class Verdict(BaseModel):
    """What was found of INT8 on this machine.

    Attributes:
        engine: runs the INT8 encoder: `openvino` or `onnx`.
        fp32: what it was compared with, for people.
        source: the form by which the backbone was loaded.
        digest: the backbone.
        pixels: what images are resized to.
        calibration: how many images of how many projects showed the ranges of activations.
        images_per_second: of `fp32` and `int8`, measured turn by turn, by the size of the batch.
        judgements: of every version in production.
        files: checksums.
    """

    model_config = ConfigDict(frozen=True)

    engine: str
    fp32: str
    source: str
    digest: str
    pixels: PixelSpec
    calibration: dict[str, int]
    images_per_second: dict[str, dict[int, float]]
    judgements: list[Judgement]
    files: dict[str, str] = {}

    @property
    def faster(self) -> bool:
        """Say whether there is a reason to use INT8 at all."""
        return fastest(self.images_per_second) == "int8"

    def accepted(self) -> frozenset[str]:
        """Return the digests of the versions that INT8 may answer for."""
        if not self.faster:
            return frozenset()
        return frozenset(one.digest for one in self.judgements if one.against is None)

    def __str__(self) -> str:
        speeds = "; ".join(
            f"{name} "
            + ", ".join(f"{speed:.0f} in batches of {size}" for size, speed in by_size.items())
            for name, by_size in self.images_per_second.items()
        )
        if not self.faster:
            return f"INT8 is not used: it is not faster (images/s: {speeds})"
        against = [
            f"{one.project!r} version {one.version} ({one.against})"
            for one in self.judgements
            if one.against is not None
        ]
        others = f", not for {', '.join(against)}" if against else ""
        return (
            f"INT8 by {self.engine} for {len(self.accepted())} versions{others}, nor for any that"
            f" was not judged (images/s: {speeds})"
        )


class Int8Store:
    """What is kept below `root`: for each machine and backbone an encoder and its verdict."""

    def __init__(self, root: Path) -> None:
        self._folders = EngineStore(root)
        self.preparing = self._folders.preparing

    def folder(self, digest: str) -> Path:
        """Return where the files for the backbone are on this machine, or would be."""
        return self._folders.folder(machine.key("int8", digest))

    def read(self, digest: str) -> Verdict | None:
        """Return what was found for the backbone; `None` where nothing was, or it is damaged."""
        folder = self.folder(digest)
        if not folder.exists():
            return None
        try:
            verdict = Verdict.model_validate_json((folder / _VERDICT).read_bytes())
            if FILE not in verdict.files or verdict.digest != digest:
                raise ValueError("the verdict speaks of something else")
            check_files(folder, verdict.files)
        except (OSError, ValueError, ValidationError) as error:
            log.warning("int8_damaged", error=str(error), fix="Run shotline quantize again.")
            return None
        return verdict

    def keep(self, prepared: Path, verdict: Verdict) -> None:
        """Keep a prepared folder and its verdict in place of what was found before."""
        files = checksums(prepared)
        written = verdict.model_copy(update={"files": files}).model_dump_json(indent=1)
        (prepared / _VERDICT).write_text(written, encoding="utf-8")
        flush_folder(prepared)
        folder = self.folder(verdict.digest)
        with self.preparing() as bin_:
            with suppress(FileNotFoundError):
                folder.rename(bin_ / "before")
            prepared.rename(folder)
        self._drop_others(folder)
        with suppress(OSError):
            flush_to_disk(folder.parent)

    def _drop_others(self, kept: Path) -> None:
        """An encoder of another backbone or library is as large as its weights."""
        for folder in kept.parent.iterdir():
            if folder != kept and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)


def int8_encoder(
    engine: str, folder: Path, facts: BackboneFacts, threads: int, about: str
) -> ImageEncoder:
    """Return the INT8 encoder in `folder`, which has encoded an image.

    Raises:
        ImportError: the engine is not installed.
    """
    encoder: ImageEncoder
    if engine == "openvino":
        encoder = OpenVinoEncoder(folder, facts, threads, about, file=FILE)
    else:
        encoder = OnnxEncoder(folder, facts, threads, about)
    warm_up(encoder)
    return encoder
