"""The image encoder computed by OpenVINO on the CPU. Nothing else here imports OpenVINO.

Each import of OpenVINO and each conversion is reported to its makers through the package
`openvino-telemetry`. Shotline reports nothing to anyone: it makes that package impossible to
import, and OpenVINO then takes a stub of its own that does nothing.
"""

import sys
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import cosine_similarity

from models.backbone import Backbone
from models.errors import BackboneUnavailable

# Single precision differs by 1e-6 at most; what differs by more has another reason.
LEAST_COSINE = 0.9999

_FIELD = "SHOTLINE_BACKBONE_ENGINE"


class OpenVinoEncoder:
    """OpenVINO on the CPU in single precision, with as many threads as PyTorch has.

    It is converted from the backbone and compared with it, which takes some ten seconds; the
    backbone is not needed afterwards. One batch at a time: threads share its buffers.

    Raises:
        BackboneUnavailable: OpenVINO is not installed, the backbone is on a GPU or computes in
            lower precision, it cannot be converted, or the features are not those of PyTorch.
    """

    def __init__(self, backbone: Backbone) -> None:
        openvino = _import_openvino()
        _require_single_precision_on_the_cpu(backbone)
        self.source, self.digest = backbone.source, backbone.digest
        self.pixels = backbone.pixels
        try:
            self._compiled = _compile(openvino, backbone)
        except Exception as error:  # torch.export and OpenVINO raise whatever they meet
            raise BackboneUnavailable(
                f"OpenVINO cannot take over the backbone {backbone.source!r}: {error}.",
                fix=f"Set {_FIELD}=torch.",
                field=_FIELD,
            ) from error
        _require_agreement(self, backbone)

    def encode(
        self, pixels: UInt8[np.ndarray, "b 3 size size"]
    ) -> Float[np.ndarray, "b embed_dim"]:
        """Return the features of one batch."""
        features: np.ndarray = self._compiled(pixels)[0]
        return features


def least_cosine(left: Float[Tensor, "b embed_dim"], right: Float[Tensor, "b embed_dim"]) -> float:
    """Return the smallest cosine between a feature and its counterpart; NaN where there is one."""
    return float(cosine_similarity(left.double(), right.double(), dim=-1).min())


def _import_openvino() -> Any:
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # as Python documents it
    try:
        import openvino  # noqa: PLC0415 - an extra, and never without the line above
    except ImportError as error:
        raise BackboneUnavailable(
            f"{_FIELD} is 'openvino', and OpenVINO cannot be imported: {error}.",
            fix=f"Install it with pip install 'shotline[openvino]', or set {_FIELD}=torch.",
            field=_FIELD,
        ) from error
    return openvino


def _require_single_precision_on_the_cpu(backbone: Backbone) -> None:
    if backbone.device.type != "cpu":
        raise BackboneUnavailable(
            f"{_FIELD} is 'openvino', which is for CPUs, and the device is '{backbone.device}'.",
            fix=f"Set SHOTLINE_BACKBONE_DEVICE=cpu, or {_FIELD}=torch.",
            field=_FIELD,
        )
    if backbone.precision != "fp32":
        raise BackboneUnavailable(
            f"{_FIELD} is 'openvino', which computes in fp32, and the precision is"
            f" {backbone.precision!r}.",
            fix=f"Set SHOTLINE_BACKBONE_PRECISION=auto, or {_FIELD}=torch.",
            field=_FIELD,
        )


def _compile(openvino: Any, backbone: Backbone) -> Any:
    size = backbone.pixels.size
    # Two images: torch.export takes a size of one for a constant.
    example = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    with torch.no_grad():
        exported = torch.export.export(
            backbone.image, (example,), dynamic_shapes=({0: torch.export.Dim("b")},), strict=False
        )
    model = openvino.convert_model(exported)
    model.reshape([-1, 3, size, size])
    options = {
        "INFERENCE_PRECISION_HINT": "f32",  # by default bf16, where the processor has it
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # a worker and the gateway's other threads share the cores
    }
    return openvino.Core().compile_model(model, "CPU", options)


def _require_agreement(encoder: OpenVinoEncoder, backbone: Backbone) -> None:
    probe = _probe(backbone.pixels.size)
    # One image alone too: kernels are chosen by the size of the batch.
    for pixels in (probe, probe[:1]):
        cosine = least_cosine(
            torch.from_numpy(encoder.encode(pixels.numpy())), backbone.encode_batch(pixels)
        )
        if not cosine >= LEAST_COSINE:  # so that NaN is refused
            raise BackboneUnavailable(
                f"OpenVINO's features of the backbone {backbone.source!r} are not those of PyTorch:"
                f" their cosine is {cosine:.6f}, and has to be at least {LEAST_COSINE}.",
                fix=f"Set {_FIELD}=torch.",
                field=_FIELD,
            )


def _probe(size: int) -> UInt8[Tensor, "4 3 size size"]:
    """Return four pictures: noise, colours that run into each other, stripes, a disc."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, size)
    row, column = torch.meshgrid(ramp, ramp, indexing="ij")
    stripes = (8 * column % 1 > 0.5).float()
    disc = ((row - 0.5).square() + (column - 0.5).square() < 0.1).float()
    pictures = [
        torch.rand(3, size, size, generator=generator),
        torch.stack([row, column, 1 - row]),
        stripes.expand(3, size, size),
        torch.stack([disc, 0.5 * disc, 1 - disc]),
    ]
    return (255 * torch.stack(pictures)).to(torch.uint8)
