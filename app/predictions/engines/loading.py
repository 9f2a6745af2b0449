"""From settings to the image encoder of the gateway: which engine, and how it is got.

`auto` tries every engine that this machine can run, leaves out those that do not decide as PyTorch
does, and takes the fastest of the others. What was chosen is kept with its converted files, so
that the next start measures nothing, and needs no PyTorch where another engine was chosen.
"""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import structlog

from app.core.settings import BackboneSettings
from app.predictions.engines import machine, onnx_engine, openvino_engine
from app.predictions.engines.agreement import Probe, agreement
from app.predictions.engines.encoder import BackboneFacts, ImageEncoder, warm_up
from app.predictions.engines.onnx_engine import OnnxEncoder
from app.predictions.engines.openvino_engine import OpenVinoEncoder
from app.predictions.engines.speed import BATCHES, fastest, images_per_second
from app.predictions.engines.store import Choice, EngineStore, Trial
from models.backbone_files import content_digest, local_folder
from models.errors import BackboneUnavailable

if TYPE_CHECKING:
    from models.backbone import Backbone, Device

log = structlog.get_logger(__name__)

_FIELD = "SHOTLINE_BACKBONE_ENGINE"


class Converted(NamedTuple):
    """An engine that runs on files of its own.

    Attributes:
        title: as people call it.
        packages: the modules that it needs.
        convert: writes its files.
        load: returns the encoder that runs on them.
    """

    title: str
    packages: tuple[str, ...]
    convert: Callable[[Any, int, Path], None]
    load: Callable[[Path, BackboneFacts, int, str], ImageEncoder]

    def missing(self) -> list[str]:
        """Return the packages that are not installed."""
        return [name for name in self.packages if find_spec(name) is None]


CONVERTED: Mapping[str, Converted] = {
    "openvino": Converted("OpenVINO", ("openvino",), openvino_engine.convert, OpenVinoEncoder),
    "onnx": Converted(
        "ONNX Runtime", ("onnxruntime", "onnxscript"), onnx_engine.convert, OnnxEncoder
    ),
}


def load_encoder(settings: BackboneSettings, folder: Path) -> ImageEncoder:
    """Return the image encoder, which has encoded an image: the first sets up what others use.

    Args:
        settings: name backbone, device and engine.
        folder: of the encoders that were converted before.

    Raises:
        BackboneUnavailable: see `models.backbone_source.load_backbone`; or the engine that the
            settings name is not installed, is not for this device or precision, cannot take the
            backbone over, or does not decide as PyTorch does.
    """
    encoder = _Loader(settings, EngineStore(folder)).load()
    warm_up(encoder)
    return encoder


class _Loader:
    """One load: the backbone is loaded at most once, and only if it is needed."""

    def __init__(self, settings: BackboneSettings, store: EngineStore) -> None:
        self._settings, self._store = settings, store
        self._threads = settings.threads or machine.cores()
        self._loaded: Backbone | None = None

    def load(self) -> ImageEncoder:
        if self._settings.engine in ("torch", "torch-compile"):
            return self._with_torch(self._settings.engine, f"{self._settings.engine}, as it is set")
        key = self._key()
        encoder = self._kept(key)
        if encoder is None:
            encoder = self._choose(key)
        log.info("engine_chosen", about=encoder.about)
        return encoder

    def _key(self) -> str:
        settings, folder = self._settings, local_folder(self._settings.name)
        # Without PyTorch where the files can be recognised; else by what it says of them.
        known = self._backbone().digest if folder is None else content_digest(folder)
        return machine.key(
            known, settings.name, settings.engine, settings.device, settings.precision,
            self._threads,
        )  # fmt: skip

    def _kept(self, key: str) -> ImageEncoder | None:
        """Return the encoder that was chosen before, `None` where there is none to be had."""
        found = self._store.read(key)
        if found is None:
            return None
        choice, probe = found
        if choice.engine not in CONVERTED:
            return self._with_torch(choice.engine, f"{choice} (measured at an earlier start)")
        try:
            facts = BackboneFacts(choice.source, choice.digest, choice.pixels)
            files, about = self._store.folder(key) / choice.engine, f"{choice} (kept from before)"
            encoder = CONVERTED[choice.engine].load(files, facts, self._threads, about)
            wrong = agreement(encoder, probe)[1]
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            wrong = str(error)
        if wrong is None:
            return encoder
        log.warning("engine_not_reused", engine=choice.engine, reason=wrong)
        return None

    def _choose(self, key: str) -> ImageEncoder:
        backbone = self._backbone()
        probe = Probe.of(backbone)
        asked = self._settings.engine
        try:
            with self._store.preparing() as folder:
                if asked == "auto":
                    choice = self._fastest(backbone, probe, folder)
                else:
                    choice = self._only(asked, backbone, probe, folder)
                kept = self._store.keep(key, folder, choice, probe)
                return self._encoder(choice.engine, kept, str(choice))
        except OSError as error:  # nothing can be written: decisions are still to be made
            if asked != "auto":
                raise _refused(asked, backbone, str(error)) from error
            log.warning("engines_not_tried", reason=str(error))
            return self._with_torch("torch", f"torch: no other could be tried ({error})")

    def _fastest(self, backbone: "Backbone", probe: Probe, folder: Path) -> Choice:
        """Return the fastest engine that decides as PyTorch does; its files stay in `folder`."""
        trials = {name: Trial(engine=name, refused="not installed") for name in self._missing()}
        encoders = {"torch": self._with_torch("torch", "torch")}
        for name in self._candidates(backbone):
            try:
                encoders[name] = self._prepared(name, backbone, folder)
                cosine, wrong = agreement(encoders[name], probe)
                trials[name] = Trial(engine=name, least_cosine=cosine, refused=wrong)
            except Exception as error:  # noqa: BLE001 - a library may raise anything
                trials[name] = Trial(engine=name, refused=f"{type(error).__name__}: {error}")
            if trials[name].refused is not None:
                encoders.pop(name, None)
        speeds = images_per_second(encoders) if len(encoders) > 1 else {}
        for name in encoders:
            said = trials.get(name, Trial(engine=name))
            trials[name] = said.model_copy(update={"images_per_second": speeds.get(name, {})})
        chosen = fastest(speeds) if speeds else "torch"
        return self._choice(chosen, backbone, [*trials.values()])

    def _only(self, name: str, backbone: "Backbone", probe: Probe, folder: Path) -> Choice:
        """Return the engine that was asked for, or say why it cannot be had."""
        self._require_usable(CONVERTED[name], name, backbone)
        try:
            encoder = self._prepared(name, backbone, folder)
        except Exception as error:
            raise _refused(name, backbone, f"{type(error).__name__}: {error}") from error
        cosine, wrong = agreement(encoder, probe)
        if wrong is not None:
            raise _refused(name, backbone, wrong)
        trial = Trial(engine=name, least_cosine=cosine)
        return self._choice(name, backbone, [trial])

    def _candidates(self, backbone: "Backbone") -> list[str]:
        """Return the engines beside PyTorch that may be tried."""
        if backbone.device.type == "cuda":
            return ["torch-compile"]
        if backbone.device.type != "cpu" or backbone.precision != "fp32":
            return []
        return [name for name in CONVERTED if name not in self._missing()]

    def _missing(self) -> list[str]:
        return [name for name, engine in CONVERTED.items() if engine.missing()]

    def _require_usable(self, engine: Converted, name: str, backbone: "Backbone") -> None:
        if missing := engine.missing():
            raise BackboneUnavailable(
                f"{_FIELD} is {name!r}, and {' and '.join(missing)} cannot be imported.",
                fix=f"Install it with pip install 'shotline[{name}]', or set {_FIELD}=torch.",
                field=_FIELD,
            )
        if backbone.device.type != "cpu":
            raise BackboneUnavailable(
                f"{_FIELD} is {name!r}, which is for CPUs, and the device is '{backbone.device}'.",
                fix=f"Set SHOTLINE_BACKBONE_DEVICE=cpu, or {_FIELD}=auto.",
                field=_FIELD,
            )
        if backbone.precision != "fp32":
            raise BackboneUnavailable(
                f"{_FIELD} is {name!r}, which computes in fp32, and the precision is"
                f" {backbone.precision!r}.",
                fix=f"Set SHOTLINE_BACKBONE_PRECISION=auto, or {_FIELD}=torch.",
                field=_FIELD,
            )

    def _prepared(self, name: str, backbone: "Backbone", folder: Path) -> ImageEncoder:
        if name in CONVERTED:
            from app.predictions.engines.tower import exported_tower  # noqa: PLC0415 - torch

            (folder / name).mkdir()
            CONVERTED[name].convert(exported_tower(backbone), backbone.pixels.size, folder / name)
        return self._encoder(name, folder, name)

    def _encoder(self, name: str, folder: Path, about: str) -> ImageEncoder:
        if name not in CONVERTED:
            return self._with_torch(name, about)
        backbone = self._backbone()
        facts = BackboneFacts(backbone.source, backbone.digest, backbone.pixels)
        return CONVERTED[name].load(folder / name, facts, self._threads, about)

    def _choice(self, name: str, backbone: "Backbone", trials: list[Trial]) -> Choice:
        return Choice(
            engine=name,
            source=backbone.source,
            digest=backbone.digest,
            pixels=backbone.pixels,
            trials=trials,
        )

    def _with_torch(self, name: str, about: str) -> ImageEncoder:
        from app.predictions.engines.torch_engine import (  # noqa: PLC0415 - torch
            CompiledTorchEncoder,
            TorchEncoder,
        )

        backbone = self._backbone()
        if name == "torch-compile":
            return CompiledTorchEncoder(backbone, about, max(BATCHES))
        return TorchEncoder(backbone, about)

    def _backbone(self) -> "Backbone":
        if self._loaded is None:
            import torch  # noqa: PLC0415 - seconds, which a kept engine does not cost

            from models.backbone_source import load_backbone  # noqa: PLC0415 - torch

            torch.set_num_threads(self._threads)
            self._loaded = load_backbone(
                self._settings.name,
                device=cast("Device", self._settings.device),
                precision=self._settings.precision,
                offline=self._settings.offline,
            )
        return self._loaded


def _refused(name: str, backbone: "Backbone", reason: str) -> BackboneUnavailable:
    return BackboneUnavailable(
        f"{CONVERTED[name].title} cannot take over the backbone {backbone.source!r}: {reason}.",
        fix=f"Set {_FIELD}=auto or torch.",
        field=_FIELD,
    )
