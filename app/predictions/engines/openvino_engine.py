"""The image encoder computed by OpenVINO on the CPU. Nothing else here imports OpenVINO.

Each import of OpenVINO and each conversion is reported to its makers through the package
`openvino-telemetry`. Shotline reports nothing to anyone: it makes that package impossible to
import, and OpenVINO then takes a stub of its own that does nothing.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from app.predictions.engines.encoder import BackboneFacts

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_FILE = "openvino.xml"


class OpenVinoEncoder:
    """OpenVINO on the CPU, in single precision unless the file says otherwise.

    One batch at a time: threads share its buffers.
    """

    def __init__(
        self, folder: Path, facts: BackboneFacts, threads: int, about: str, file: str = _FILE
    ) -> None:
        self.source, self.digest, self.pixels = facts
        self.about = about
        openvino = import_openvino()
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # by default bf16, where the processor has it
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # a worker and the gateway's other threads share the cores
        }
        self._compiled = openvino.Core().compile_model(str(folder / file), "CPU", options)

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        features: np.ndarray = self._compiled(pixels)[0]
        return features


def convert(exported: "ExportedProgram", size: int, folder: Path) -> None:
    """Write the exported image tower into `folder` as OpenVINO reads it."""
    openvino = import_openvino()
    model = openvino.convert_model(exported)
    model.reshape([-1, 3, size, size])
    openvino.save_model(model, str(folder / _FILE), compress_to_fp16=False)


def import_openvino() -> Any:
    """Return the package, which stays silent.

    Raises:
        ImportError: it is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # as Python documents it
    import openvino  # noqa: PLC0415 - an extra, and never without the line above

    return openvino
