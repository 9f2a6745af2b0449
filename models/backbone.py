"""The frozen CLIP: identified, and asked for image and text features."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, cast

import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from models.chunks import Chunks
from models.errors import BackboneUnavailable, DeviceUnavailable
from models.image_tower import ImageTower
from models.imaging import Interpolation, PixelSpec
from models.text_encoder import TextEncoder

# The convolutions choose their kernels by batch size, and so their rounding: every batch is filled
# up to this one size, so that an image has the same features in whatever company it is encoded.
IMAGE_BATCH = 16

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
Tokenize = Callable[[Sequence[str]], Int[Tensor, "n length"]]


class Backbone:
    """A frozen CLIP on a device.

    The weights stay in single precision; `precision` is that of the image encoder's arithmetic.

    Attributes:
        source: the form it was loaded by.
        digest: `sha256:` over architecture, weights and preprocessing; two backbones of one digest
        give one result.
        pixels: what the image encoder expects.
        image: from pixels to image features, for engines other than PyTorch's own.
        logit_scale: `exp` of the log parameter, the factor in front of the cosines.
        image_batch: images that are encoded at once; another size rounds otherwise.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenize: Tokenize,
        *,
        source: str,
        device: Device = "auto",
        precision: Precision = "auto",
    ) -> None:
        self.source = source
        self.device = _choose_device(device)
        self.precision = _choose_precision(precision, self.device)
        clip.float().eval().requires_grad_(requires_grad=False).to(self.device)
        self.tokenize = tokenize
        self.image_batch = IMAGE_BATCH
        self.text = TextEncoder(clip)
        self.pixels = _pixel_spec(clip)
        self.image = ImageTower(clip, self.pixels.mean, self.pixels.std).eval().to(self.device)
        self.logit_scale = float(cast("Tensor", clip.logit_scale).exp())
        self.digest = _digest(clip, self.text.attn_mask, self.pixels)
        self.embed_dim = self.encode_texts(["a"]).shape[1]

    @torch.no_grad()
    def encode_images(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        """Return L2-normalised image features in single precision on the CPU.

        `b` may be any number; images are encoded `image_batch` at a time.
        """
        chunks = [self._encode_chunk(chunk) for chunk in pixels.split(self.image_batch)]
        return torch.cat(chunks) if chunks else torch.empty(0, self.embed_dim)

    def _encode_chunk(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        count = pixels.shape[0]
        full = pad(pixels, (0, 0, 0, 0, 0, 0, 0, self.image_batch - count))
        return self.encode_batch(full)[:count]

    @torch.no_grad()
    def encode_batch(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b embed_dim"]:
        """Return what `encode_images` does, up to rounding, in one batch of exactly these images.

        For those who wait for an answer: to fill a batch up costs as much as images would.
        """
        with self.autocast():
            features: Tensor = self.image(pixels.to(self.device))
        return features.cpu()

    @contextmanager
    def in_chunks(self, chunks: Chunks) -> Iterator[None]:
        """Do everything in pieces of these sizes."""
        before = self.text.chunk, self.image_batch
        self.text.chunk, self.image_batch = chunks.texts, chunks.images or IMAGE_BATCH
        try:
            yield
        finally:
            self.text.chunk, self.image_batch = before

    @property
    def vision(self) -> nn.Module:
        """The image encoder, for those who drive its parts themselves."""
        return self.image.vision

    def normalised(self, pixels: UInt8[Tensor, "b 3 size size"]) -> Float[Tensor, "b 3 size size"]:
        """Return the pixels as the image encoder reads them, on its device."""
        return self.image.normalised(pixels.to(self.device))

    def autocast(self) -> torch.autocast:
        """Return the context in which the image encoder runs at its precision."""
        dtype = _DTYPES[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not torch.float32)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "n embed_dim"]:
        """Return L2-normalised text features in single precision on the CPU."""
        prompts = self.text.embed(self.tokenize(texts).to(self.device))
        return normalize(self.text(prompts), dim=-1).cpu()


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _choose_device(device: Device) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceUnavailable(
            "The device 'cuda' was asked for, and this machine shows no usable GPU.",
            fix="Use --device cpu, or check the driver with nvidia-smi.",
            field="device",
        )
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def _choose_precision(
    precision: Precision, device: torch.device
) -> Literal["fp32", "bf16", "fp16"]:
    if precision != "auto":
        return precision
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _pixel_spec(clip: nn.Module) -> PixelSpec:
    config = open_clip.get_model_preprocess_cfg(clip)
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) != 1:
        raise BackboneUnavailable(
            f"The backbone expects {size} pixels; only square inputs are served.",
            fix="Choose a backbone with a square input.",
            field="backbone",
        )
    interpolation = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
    return PixelSpec(
        sides.pop(),
        tuple(config["mean"]),
        tuple(config["std"]),
        cast("Interpolation", interpolation),
    )


def _digest(clip: nn.Module, mask: Float[Tensor, "length length"] | None, pixels: PixelSpec) -> str:
    """Hash all that decides what the towers compute: modules, weights, mask, pixels."""
    hasher = hashlib.sha256(repr([pixels, _architecture(clip)]).encode())
    tensors = clip.state_dict() | ({} if mask is None else {"attn_mask": mask})
    for name, tensor in sorted(tensors.items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return "sha256:" + hasher.hexdigest()


# What a module computes beside its class and its weights, where it has such an attribute. By name,
# not all that a module has: another version of a library would then make another backbone.
_SETTINGS = (
    *("num_heads", "pool_type", "final_ln_after_pool", "attn_pool_type", "text_pool_type"),
    *("eps", "stride", "padding", "dilation", "groups", "kernel_size", "output_size"),
    *("approximate", "negative_slope"),
)


def _architecture(clip: nn.Module) -> list[tuple[str, str, list[str]]]:
    """Return the name, class and settings of each module that computes something."""
    return [
        (
            name,
            type(module).__name__,
            [f"{key}={getattr(module, key)}" for key in _SETTINGS if hasattr(module, key)],
        )
        for name, module in clip.named_modules()
        if not isinstance(module, nn.Identity | nn.Dropout)
    ]
