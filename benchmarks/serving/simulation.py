"""The gateway's batching as a simulation of events: what its latencies would be without overhead.

The policy is that of `app.predictions.batcher`: decoders take images in the order of arrival; a
batch starts at once when the encoder is idle, with whatever is decoded, up to `max_batch`; what is
decoded meanwhile rides in the next one. That one decoder alone works while two batches are with the
encoder is left out: the images that it decodes then have to wait for those anyway.
"""

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class ServiceTimes:
    """Seconds as measured.

    Attributes:
        decode: of single images.
        encode: of batches, by their number of images; every size up to the largest.
    """

    decode: Sequence[float]
    encode: Mapping[int, Sequence[float]]

    @classmethod
    def seen(cls, timings: Sequence[tuple[float, float]], alone: "ServiceTimes") -> "ServiceTimes":
        """Return the times that a loaded gateway itself had.

        Args:
            timings: seconds of decode and of encode as the answers say them, in the order of the
                answers: those of one batch follow each other and say the same of it.
            alone: for sizes of batches that did not occur.
        """
        sizes: dict[int, list[float]] = {}
        for seconds, batch in groupby(encode for _, encode in timings):
            sizes.setdefault(len(list(batch)), []).append(seconds)
        encode = {size: sizes.get(size, times) for size, times in alone.encode.items()}
        return cls([decode for decode, _ in timings], encode)

    def sampled(self, count: int, seed: int) -> tuple[list[float], Callable[[int], float]]:
        """Return `count` decode times, and what draws the time of a batch."""
        source = random.Random(seed)  # noqa: S311 - no secret
        decode = [source.choice(self.decode) for _ in range(count)]
        return decode, lambda size: source.choice(self.encode[size])


def simulate(
    arrivals: Sequence[float],
    decode: Sequence[float],
    encode: Callable[[int], float],
    *,
    max_batch: int,
    decode_workers: int,
) -> list[float]:
    """Return the seconds from each arrival to the end of its batch.

    Args:
        arrivals: rising.
        decode: the decode time of each.
        encode: from a batch's size to its time, asked once for each batch in its turn.
        max_batch: images in a batch.
        decode_workers: images decoded at a time.
    """
    ready = sorted(
        (done, place) for place, done in enumerate(_decoded(arrivals, decode, decode_workers))
    )
    latencies = [0.0] * len(arrivals)
    idle_at, first = 0.0, 0
    while first < len(ready):
        start = max(idle_at, ready[first][0])
        last = first
        while last < len(ready) and last - first < max_batch and ready[last][0] <= start:
            last += 1
        idle_at = start + encode(last - first)
        for _, place in ready[first:last]:
            latencies[place] = idle_at - arrivals[place]
        first = last
    return latencies


def _decoded(arrivals: Sequence[float], decode: Sequence[float], workers: int) -> list[float]:
    """Return when each image is decoded: first come, first served."""
    free = [0.0] * workers
    done = []
    for arrival, seconds in zip(arrivals, decode, strict=True):
        start = max(arrival, heapq.heappop(free))
        done.append(start + seconds)
        heapq.heappush(free, start + seconds)
    return done
