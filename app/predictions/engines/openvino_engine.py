"""The image encoder computed by OpenVINO on the CPU. Nothing else here imports OpenVINO.

Each import of OpenVINO and each conversion is reported to its makers through the package
`openvino-telemetry`. Shotline reports nothing to anyone: it makes that package impossible to
import, and OpenVINO then takes a stub of its own that does nothing.
"""

import math
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from app.predictions.engines.encoder import BackboneFacts

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_FILE = "openvino.xml"
# A batch has four images where nothing else is set, and more at a time are no faster for a stream:
# what they need does not fit into a core's cache.
_MOST_STREAMS = _MOST_IMAGES = 4


class OpenVinoEncoder:
    """OpenVINO on the CPU, in single precision unless the file says otherwise.

    A batch is shared out among streams, each with cores of its own: cores that compute one image
    together wait for each other with every layer, and the longer the more else they have to do.
    Fewer images than streams are computed by all cores together, which is sooner for each.

    Two batches may be under way: the second is computed as soon as cores are free, whatever Python
    does then.
    """

    def __init__(
        self, folder: Path, facts: BackboneFacts, threads: int, about: str, file: str = _FILE
    ) -> None:
        self.source, self.digest, self.pixels = facts
        self.about = about
        openvino = import_openvino()
        core = openvino.Core()
        model = core.read_model(str(folder / file))
        self._streams = streams_of(threads)
        self._together = _Compiled(openvino, core, model, threads, 1)
        self._apart = self._together
        if self._streams > 1:
            self._apart = _Compiled(openvino, core, model, threads, self._streams)

    def begin(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Callable[[], Float[np.ndarray, "b embed_dim"]]:
        """Take a batch; see `app.predictions.engines.pipeline`."""
        if len(pixels) < self._streams:
            return self._together.begin([pixels])
        parts = max(self._streams, math.ceil(len(pixels) / _MOST_IMAGES))
        return self._apart.begin(np.array_split(pixels, parts))

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        return self.begin(np.ascontiguousarray(pixels))()


class _Compiled:
    """The model for so many streams, and the requests that wait for one of them in OpenVINO.

    Begun with by one thread at a time, while another may ask for what was found.
    """

    def __init__(self, openvino: Any, core: Any, model: Any, threads: int, streams: int) -> None:
        options = {
            "INFERENCE_PRECISION_HINT": "f32",  # by default bf16, where the processor has it
            "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # a worker and the gateway's other threads share the cores
        }
        self.compiled = core.compile_model(model, "CPU", options)
        self._tensor = openvino.Tensor
        self._idle: deque[Any] = deque()

    def begin(self, parts: list[UInt8[np.ndarray, "n 3 size size"]]) -> Callable[[], Any]:
        """Begin with the parts of a batch, and return what waits for the features of all."""
        begun = [self._begin(part) for part in parts]

        def features() -> Float[np.ndarray, "b embed_dim"]:
            try:
                for problem in [_ended(request) for request in begun]:
                    if problem is not None:
                        raise problem
                # A copy, since a request's own is written to again.
                return np.concatenate([request.get_output_tensor().data for request in begun])
            finally:
                parts.clear()  # not sooner: OpenVINO reads them, and does not hold them
                self._idle.extend(begun)

        return features

    def _begin(self, part: UInt8[np.ndarray, "n 3 size size"]) -> Any:
        try:
            request = self._idle.popleft()
        except IndexError:
            request = self.compiled.create_infer_request()
        request.set_input_tensor(self._tensor(part, shared_memory=True))
        request.start_async()
        return request


def _ended(request: Any) -> Exception | None:
    """Wait until a request has nothing to do any more; return what went wrong."""
    try:
        request.wait()
    except RuntimeError as error:
        return error
    return None


def streams_of(threads: int) -> int:
    """Return among how many streams so many threads are shared out, all alike; 1 for 5 or 7."""
    return max(count for count in range(1, _MOST_STREAMS + 1) if threads % count == 0)


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
