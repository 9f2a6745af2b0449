"""Static quantisation by ONNX Runtime: weights and activations in eight bits.

Nothing is quantised that was not measured: the ranges of activations are those that images of the
projects show. What comes of it is one ONNX file, which ONNX Runtime and OpenVINO both run.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import UInt8

from app.predictions.engines.onnx_engine import FILE, import_onnxruntime
from models.progress import Progress, no_progress

# With weights of their own, or products of two activations.
_LAYERS = ("Conv", "MatMul", "Gemm")
# A clip or ReLU behind a layer has to be there too: without it the range is that of what the layer
# says before the clip, most of which the clip throws away.
_OPERATORS = [*_LAYERS, "Clip", "Relu"]
# The first layers look at pixels: they cost little, and grey, even surfaces use few of their steps.
FIRST_LAYERS = 5
_BATCH = 8


def quantize(
    folder: Path,
    images: UInt8[np.ndarray, "n 3 size size"],
    target: Path,
    progress: Progress = no_progress,
) -> None:
    """Write the encoder in `folder` into the folder `target` in INT8.

    Args:
        folder: holds `FILE`, as `onnx_engine.convert` writes it.
        images: show the ranges that activations take.
        target: a folder that is there.
        progress: is told how many of the images have been seen.
    """
    import_onnxruntime()  # before anything of it: this import keeps it from reporting
    import onnx  # noqa: PLC0415 - a part of an extra
    from onnxruntime import quantization  # noqa: PLC0415 - heavy, and never without the line above
    from onnxruntime.quantization.shape_inference import quant_pre_process  # noqa: PLC0415

    with TemporaryDirectory(prefix="shotline-int8-") as scratch:
        prepared = Path(scratch) / FILE
        quant_pre_process(folder / FILE, prepared, skip_symbolic_shape=True)
        nodes = onnx.load(prepared, load_external_data=False).graph.node
        layers = [node.name for node in nodes if node.op_type in _LAYERS]
        quantization.quantize_static(
            prepared,
            target / FILE,
            _Images(images, progress),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=_OPERATORS,
            nodes_to_exclude=layers[:FIRST_LAYERS],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )


class _Images:
    """What ONNX Runtime calls a CalibrationDataReader: gives batches until there are none."""

    def __init__(self, images: UInt8[np.ndarray, "n 3 size size"], progress: Progress) -> None:
        self._batches = self._each(images, progress)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the encoder's input, None at the end."""
        return next(self._batches, None)

    def _each(
        self, images: UInt8[np.ndarray, "n 3 size size"], progress: Progress
    ) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, len(images), _BATCH):
            progress(start, len(images))
            yield {"pixels": images[start : start + _BATCH]}
        progress(len(images), len(images))
