"""The class embeddings of all models in memory: rows of one array, multiplied with one batch.

Each model has a range of rows, held by its `Head`. A range is free again when nothing holds the
head any more, so that no model is overwritten while an image still waits to be scored by it.
"""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from app.core.errors import Conflict
from models.errors import DamagedArtifact

_ROW_TYPE = np.dtype(np.float32)
_FULL = 0.9


class _Range(NamedTuple):
    start: int
    rows: int


class Head:
    """A model's rows in the store's array, and the factor in front of its cosines."""

    __slots__ = ("_given_back", "array", "count", "logit_scale", "start")

    def __init__(
        self,
        array: Float[np.ndarray, "capacity embed_dim"],
        rows: _Range,
        logit_scale: float,
        given_back: "SimpleQueue[_Range]",
    ) -> None:
        self.array = array
        self.start, self.count = rows
        self.logit_scale = logit_scale
        self._given_back = given_back

    def __del__(self) -> None:
        # May run anywhere, within the store's own methods too: that queue's put is made for it.
        self._given_back.put(_Range(self.start, self.count))


class EmbeddingStore:
    """One array of class embeddings under a limit, and the ranges of it that are free.

    Args:
        limit: in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: Float[np.ndarray, "capacity embed_dim"] | None = None
        self._free: list[_Range] = []  # in order, no two of them adjacent
        self._given_back: SimpleQueue[_Range] = SimpleQueue()
        self._lock = threading.Lock()

    def add(
        self, embeddings: Float[np.ndarray, "n_classes embed_dim"], logit_scale: float
    ) -> Head | None:
        """Copy a model's embeddings into the store; None where no gap is large enough now.

        Raises:
            Conflict: they would not fit into the empty store.
            DamagedArtifact: they are as wide as no other model's.
        """
        with self._lock:
            rows = self._array(embeddings)
            self._take_back()
            found = self._cut(len(embeddings))
            if found is None:
                return None
            rows[found.start : found.start + found.rows] = embeddings
            return Head(rows, found, logit_scale, self._given_back)

    @property
    def used(self) -> int:
        """How many bytes models have."""
        with self._lock:
            if self._rows is None:
                return 0
            self._take_back()
            taken = len(self._rows) - sum(gap.rows for gap in self._free)
            return taken * self._rows.strides[0]

    @property
    def full(self) -> bool:
        """Whether the next model might need another one to leave."""
        return self.used > _FULL * self._limit

    def wait(self, seconds: float) -> bool:
        """Wait until rows are given back; False where none are within `seconds`."""
        try:
            returned = self._given_back.get(timeout=max(0.0, seconds))
        except Empty:
            return False
        self._given_back.put(returned)
        return True

    def _array(self, embeddings: np.ndarray) -> np.ndarray:
        count, width = embeddings.shape
        capacity = self._limit // (width * _ROW_TYPE.itemsize)
        if self._rows is not None and self._rows.shape[1] != width:
            raise DamagedArtifact(
                f"Its class embeddings are {width} wide; the backbone's are {self._rows.shape[1]}.",
                fix="Take it from a backup, or tune again; do not use it for decisions.",
            )
        if count > capacity:
            raise Conflict(
                f"The model's {count} classes take {count * width * _ROW_TYPE.itemsize} bytes of"
                f" memory; all models together may take {self._limit}.",
                fix="Set SHOTLINE_PREDICTION_MODEL_BYTES higher and start the gateway again.",
                field="model",
            )
        if self._rows is None:
            # All of the limit at once, so that nothing is ever moved: the kernel gives memory only
            # for pages that were written to.
            self._rows = np.empty((capacity, width), dtype=_ROW_TYPE)
            self._free = [_Range(0, capacity)]
        return self._rows

    def _cut(self, count: int) -> _Range | None:
        """Take `count` rows from the first gap that has them."""
        for place, gap in enumerate(self._free):
            if gap.rows > count:
                self._free[place] = _Range(gap.start + count, gap.rows - count)
                return _Range(gap.start, count)
            if gap.rows == count:
                return self._free.pop(place)
        return None

    def _take_back(self) -> None:
        """Make gaps of what was given back, joined with those next to them."""
        returned = list(self._free)
        while True:
            try:
                returned.append(self._given_back.get_nowait())
            except Empty:
                break
        if len(returned) == len(self._free):
            return
        joined: list[_Range] = []
        for gap in sorted(returned):
            if joined and joined[-1].start + joined[-1].rows == gap.start:
                joined[-1] = _Range(joined[-1].start, joined[-1].rows + gap.rows)
            else:
                joined.append(gap)
        self._free = joined


def probabilities(
    features: Float[np.ndarray, "b embed_dim"], heads: Sequence[Head]
) -> list[Float[np.ndarray, " n_classes"]]:
    """Return for each image the probabilities of its own model's classes.

    One gather of the rows of all models in the batch, one multiplication of all features with them,
    and a softmax over each image's own share, filled up to the longest class list. For each image
    as `models.decision.class_probabilities`. All heads are of one store.
    """
    models = list(dict.fromkeys(heads))
    counts = np.array([head.count for head in models])
    first = np.cumsum(counts) - counts
    rows = np.concatenate([np.arange(head.start, head.start + head.count) for head in models])
    cosines = features @ np.take(heads[0].array, rows, axis=0).T
    place = {head: index for index, head in enumerate(models)}
    own = np.array([place[head] for head in heads])
    columns = np.arange(counts.max())
    theirs = columns < counts[own, None]
    picked = np.take_along_axis(cosines, np.where(theirs, first[own, None] + columns, 0), axis=1)
    scales = np.array([[head.logit_scale] for head in heads], dtype=cosines.dtype)
    logits = np.where(theirs, scales * picked, -np.inf)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return [row[: head.count] for row, head in zip(shares, heads, strict=True)]
