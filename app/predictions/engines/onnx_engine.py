"""The image encoder computed by ONNX Runtime on the CPU. Nothing else here imports ONNX Runtime.

Since version 1.29 it reports sessions to its makers unless `ORT_DISABLE_TELEMETRY` is set when its
library is loaded. Shotline reports nothing to anyone.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from jaxtyping import Float, UInt8

from app.predictions.engines.encoder import BackboneFacts

if TYPE_CHECKING:
    from torch.export import ExportedProgram

FILE = "encoder.onnx"


class OnnxEncoder:
    """ONNX Runtime on the CPU, in single precision unless the file says otherwise."""

    def __init__(self, folder: Path, facts: BackboneFacts, threads: int, about: str) -> None:
        onnxruntime = import_onnxruntime()
        self.source, self.digest, self.pixels = facts
        self.about = about
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that wait would else burn the cores that decoders and a worker need.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            folder / FILE, options, providers=["CPUExecutionProvider"]
        )

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        features: np.ndarray = self._session.run(None, {"pixels": pixels})[0]
        return features


def convert(exported: "ExportedProgram", size: int, folder: Path) -> None:  # noqa: ARG001
    """Write the exported image tower into `folder` as ONNX."""
    from torch import onnx  # noqa: PLC0415 - heavy, and for the conversion alone

    program = onnx.export(
        exported, dynamo=True, input_names=["pixels"], output_names=["features"], verbose=False
    )
    cast("onnx.ONNXProgram", program).save(folder / FILE)  # None without dynamo


def import_onnxruntime() -> Any:
    """Return the package, which stays silent.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime  # noqa: PLC0415 - an extra, and never without the line above

    return onnxruntime
