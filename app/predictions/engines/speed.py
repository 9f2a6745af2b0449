"""How fast engines are, turn by turn, so that what else the machine does hits all alike."""

import math
import time
from collections.abc import Mapping
from statistics import median

import numpy as np

from app.predictions.engines.encoder import ImageEncoder

# One image that comes alone, and as many as ride together under load.
BATCHES = (1, 16)
_ROUNDS = 5

# By engine and size of batch.
Speeds = Mapping[str, dict[int, float]]


def images_per_second(encoders: Mapping[str, ImageEncoder], rounds: int = _ROUNDS) -> Speeds:
    """Return the medians of a few rounds; who goes first changes with the rounds."""
    return {
        name: {batch: batch / median(seconds) for batch, seconds in by_batch.items()}
        for name, by_batch in batch_seconds(encoders, rounds).items()
    }


def batch_seconds(
    encoders: Mapping[str, ImageEncoder], rounds: int
) -> dict[str, dict[int, list[float]]]:
    """Return the seconds of every round by engine and size of batch."""
    found: dict[str, dict[int, list[float]]] = {name: {} for name in encoders}
    for batch in BATCHES:
        for number in range(rounds):
            for name in list(encoders)[:: 1 if number % 2 else -1]:
                found[name].setdefault(batch, []).append(_seconds(encoders[name], batch))
    return found


def fastest(speeds: Speeds) -> str:
    """Return the engine with the highest geometric mean over the sizes of batches."""
    return max(speeds, key=lambda name: math.prod(speeds[name].values()))


def _seconds(encoder: ImageEncoder, batch: int) -> float:
    """Return how long the second of two batches takes.

    The first wakes the engine's threads, whose sleep is the others' turns: how long that takes is a
    matter of luck, and made another engine win from start to start.
    """
    size = encoder.pixels.size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, size, size), dtype=np.uint8)
    encoder.encode(pixels)
    start = time.perf_counter()
    encoder.encode(pixels)
    return time.perf_counter() - start
