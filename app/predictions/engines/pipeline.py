"""Handing an encoder its next batch while it still computes the last one.

Between two batches Python has to answer one and to gather the next, with the interpreter's lock
held by whoever else works in the gateway: milliseconds in which an encoder would idle.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from app.predictions.engines.encoder import ImageEncoder

Features = Float[np.ndarray, "b embed_dim"]
Result = Callable[[], Features]


@runtime_checkable
class Pipeline(Protocol):
    """Takes batches one after the other, and computes them in that order."""

    def begin(self, pixels: UInt8[np.ndarray, "b 3 size size"]) -> Result:
        """Take a batch at once, and return what waits for its features or raises what went wrong.

        At most two batches are under way; results are asked for in the order of the batches.
        """
        ...


class InThread:
    """A pipeline for an encoder that has none: a thread of its own computes batch after batch."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder
        self._thread = ThreadPoolExecutor(1, "encoder")

    def begin(self, pixels: UInt8[np.ndarray, "b 3 size size"]) -> Result:
        """Take a batch; see `Pipeline.begin`."""
        return self._thread.submit(self._encoder.encode, pixels).result


def pipeline_of(encoder: ImageEncoder) -> Pipeline:
    """Return the encoder itself where it is a pipeline, else one around it."""
    return encoder if isinstance(encoder, Pipeline) else InThread(encoder)
