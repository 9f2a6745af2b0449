"""The image encoder computed by OpenVINO on the CPU. Nothing else here imports OpenVINO.

Each import of OpenVINO and each conversion is reported to its makers through the package
`openvino-telemetry`. Shotline reports nothing to anyone: it makes that package impossible to
import, and OpenVINO then takes a stub of its own that does nothing.
"""

import sys
from collections.abc import Callable
from itertools import cycle
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

    Two batches may be under way: the second is computed as soon as the first is done, whatever
    Python does then.
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
        self._tensor = openvino.Tensor
        self._requests = cycle([self._compiled.create_infer_request() for _ in range(2)])

    def begin(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Callable[[], Float[np.ndarray, "b embed_dim"]]:
        """Take a batch; see `app.predictions.engines.pipeline`."""
        request = next(self._requests)
        request.set_input_tensor(self._tensor(pixels, shared_memory=True))
        request.start_async()

        def features() -> Float[np.ndarray, "b embed_dim"]:
            request.wait()
            found: np.ndarray = request.get_output_tensor().data
            return found.copy()  # the request's own is written to again

        return features

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        return self.begin(np.ascontiguousarray(pixels))()


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
