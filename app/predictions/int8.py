"""The second encoder of a gateway: in INT8, for the versions that it was accepted for.

All others, those promoted after `shotline quantize` too, are answered by the first encoder.
"""

from collections.abc import Callable
from pathlib import Path

import structlog

from app.predictions.batcher import Batcher
from app.predictions.engines import machine
from app.predictions.engines.encoder import BackboneFacts, ImageEncoder
from app.predictions.engines.int8 import Int8Store, int8_encoder

log = structlog.get_logger(__name__)

_NOTHING = "INT8 is on, and nothing was accepted for this backbone, processor and libraries"


class Int8:
    """Nothing until the first encoder is there; then whatever was accepted for its backbone.

    Args:
        folder: of what `shotline quantize` found.
        threads: of the encoder, as many as cores by default.
        make_batcher: makes the batcher of an encoder that the given function loads.
    """

    def __init__(
        self,
        folder: Path,
        threads: int | None,
        make_batcher: Callable[[Callable[[], ImageEncoder]], Batcher],
    ) -> None:
        self._store, self._threads = Int8Store(folder), threads or machine.cores()
        self._make_batcher = make_batcher
        self._batcher: Batcher | None = None
        self._accepted: frozenset[str] = frozenset()
        self._about = ""

    def start(self) -> None:
        """Nothing to start: it follows the first encoder."""

    def stop(self) -> None:
        """End the batcher. The first encoder's thread, which may be in `follow`, has ended."""
        if self._batcher is not None:
            self._batcher.stop()

    def after(self, load: Callable[[], ImageEncoder]) -> Callable[[], ImageEncoder]:
        """Return what loads the first encoder by `load`, and then this one."""

        def both() -> ImageEncoder:
            encoder = load()
            self._follow(encoder)
            return encoder

        return both

    def batcher_for(self, digest: str) -> Batcher | None:
        """Return the INT8 batcher where it may answer for the artifact of that digest."""
        return self._batcher if digest in self._accepted else None

    def about(self) -> str:
        """Return for what it is used and why not for others; empty until that is known."""
        return self._about

    def _follow(self, encoder: ImageEncoder) -> None:
        """Load what was accepted for the backbone of `encoder`, if anything was."""
        verdict = self._store.read(encoder.digest)
        if verdict is None:
            self._refuse(_NOTHING, fix="Run shotline quantize.")
            return
        if not verdict.accepted():
            self._refuse(str(verdict) if not verdict.faster else f"{_NOTHING}: {verdict}")
            return
        try:
            facts = BackboneFacts(encoder.source, encoder.digest, encoder.pixels)
            folder, about = self._store.folder(encoder.digest), str(verdict)
            loaded = int8_encoder(verdict.engine, folder, facts, self._threads, about)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            self._refuse(f"INT8 could not be loaded: {error}")
            return
        self._batcher, self._about = self._make_batcher(lambda: loaded), about
        self._batcher.start()
        self._accepted = verdict.accepted()  # last: whoever finds a digest here finds the rest
        log.info("int8_used", about=about)

    def _refuse(self, reason: str, fix: str = "") -> None:
        self._about = reason
        log.warning("int8_not_used", reason=reason, **({"fix": fix} if fix else {}))
