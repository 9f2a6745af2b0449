"""The embeddings of all models in memory: rows of two arrays, each multiplied with one batch.

One array has the class embeddings in single precision; the other, a byte a number, what decisions
are made sure by: the folds' models and the class means. Each model has a range of rows in each,
held by its `Head`. A range is free again when nothing holds the head any more, so that no model is
overwritten while an image still waits to be scored by it.
"""

import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from app.core.errors import Conflict
from models.errors import DamagedArtifact
from models.trust.evidence import Evidence, read_evidence
from models.trust.quantised import Quantised, products

_ROW_TYPE, _REDUCED_TYPE = np.dtype(np.float32), np.dtype(np.int8)
_FULL = 0.9


class _Range(NamedTuple):
    start: int
    rows: int


class Rows:
    """Rows of one type and width under a limit, and the ranges of them that are free.

    Args:
        dtype: of the numbers.
        width: of a row.
        limit: in bytes.
    """

    def __init__(self, dtype: np.dtype[Any], width: int, limit: int) -> None:
        # All of the limit at once, so that nothing is ever moved: the kernel gives memory only
        # for pages that were written to.
        self.values = np.empty((limit // (width * dtype.itemsize), width), dtype=dtype)
        self.scales = np.ones(len(self.values) if dtype == _REDUCED_TYPE else 0, dtype=_ROW_TYPE)
        self._free = [_Range(0, len(self.values))]  # in order, no two of them adjacent
        self._given_back: SimpleQueue[_Range] = SimpleQueue()

    @property
    def bytes_of_row(self) -> int:
        """Return how many bytes a row has."""
        return self.values.strides[0]

    @property
    def used(self) -> int:
        """How many bytes models have."""
        self._take_back()
        return (len(self.values) - sum(gap.rows for gap in self._free)) * self.bytes_of_row

    def cut(self, count: int) -> _Range | None:
        """Take `count` rows from the first gap that has them; None where there is none."""
        self._take_back()
        if count == 0:
            return _Range(0, 0)
        for place, gap in enumerate(self._free):
            if gap.rows > count:
                self._free[place] = _Range(gap.start + count, gap.rows - count)
                return _Range(gap.start, count)
            if gap.rows == count:
                return self._free.pop(place)
        return None

    def give_back(self, rows: _Range) -> None:
        """Note that a range is free; may be called from anywhere, `__del__` too."""
        if rows.rows:
            self._given_back.put(rows)

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


class _Arrays(NamedTuple):
    """The rows in single precision, and those that are reduced to a byte a number."""

    full: Rows
    reduced: Rows


class Head:
    """A model's rows in the store's arrays, and the factor in front of its cosines."""

    __slots__ = ("_left", "arrays", "count", "logit_scale", "reduced", "start")

    def __init__(
        self,
        arrays: _Arrays,
        rows: _Range,
        reduced: _Range,
        logit_scale: float,
        left: "SimpleQueue[None]",
    ) -> None:
        self.arrays = arrays
        self.start, self.count = rows
        self.reduced = reduced
        self.logit_scale = logit_scale
        self._left = left

    def __del__(self) -> None:
        # May run anywhere, within the store's own methods too: that queue's put is made for it.
        self.arrays.reduced.give_back(self.reduced)
        self.arrays.full.give_back(_Range(self.start, self.count))
        self._left.put(None)


class EmbeddingStore:
    """The embeddings of models under a limit.

    Args:
        limit: in bytes, of all rows together.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._arrays: _Arrays | None = None
        self._left: SimpleQueue[None] = SimpleQueue()  # a token for each model that left
        self._lock = threading.Lock()

    def add(
        self,
        embeddings: Float[np.ndarray, "n_classes embed_dim"],
        logit_scale: float,
        reduced: Quantised | None = None,
    ) -> Head | None:
        """Copy a model's embeddings into the store; None where there is no room for them now.

        Args:
            embeddings: of the classes.
            logit_scale: the factor in front of the cosines.
            reduced: what else its images are compared with, see `models.trust.evidence`.

        Raises:
            Conflict: they would not fit into the empty store.
            DamagedArtifact: they are as wide as no other model's.
        """
        with self._lock:
            self._forget_those_that_left()
            extra = 0 if reduced is None else len(reduced.rows)
            full, small = arrays = self._made(embeddings, extra)
            wanted = len(embeddings) * full.bytes_of_row + extra * small.bytes_of_row
            if full.used + small.used + wanted > self._limit:
                return None
            found = full.cut(len(embeddings))
            if found is None:
                return None
            further = small.cut(extra)
            if further is None:
                full.give_back(found)
                return None
            full.values[found.start : found.start + found.rows] = embeddings
            if reduced is not None:
                place = slice(further.start, further.start + further.rows)
                small.values[place], small.scales[place] = reduced
            return Head(arrays, found, further, logit_scale, self._left)

    @property
    def used(self) -> int:
        """How many bytes models have."""
        with self._lock:
            return 0 if self._arrays is None else sum(rows.used for rows in self._arrays)

    @property
    def full(self) -> bool:
        """Whether the next model might need another one to leave."""
        return self.used > _FULL * self._limit

    def wait(self, seconds: float) -> bool:
        """Wait until a model leaves; False where none does within `seconds`."""
        try:
            self._left.get(timeout=max(0.0, seconds))
        except Empty:
            return False
        self._left.put(None)
        return True

    def _forget_those_that_left(self) -> None:
        """Whoever waits from here on waits for the next one."""
        while not self._left.empty():
            self._left.get_nowait()

    def _made(self, embeddings: np.ndarray, extra: int) -> _Arrays:
        count, width = embeddings.shape
        if self._arrays is not None and self._arrays.full.values.shape[1] != width:
            raise DamagedArtifact(
                f"Its class embeddings are {width} wide; the backbone's are"
                f" {self._arrays.full.values.shape[1]}.",
                fix="Take it from a backup, or tune again; do not use it for decisions.",
            )
        wanted = count * width * _ROW_TYPE.itemsize + extra * width
        if wanted > self._limit:
            raise Conflict(
                f"The model's {count} classes take {wanted} bytes of memory; all models together"
                f" may take {self._limit}.",
                fix="Set SHOTLINE_PREDICTION_MODEL_BYTES higher and start the gateway again.",
                field="model",
            )
        if self._arrays is None:
            types = _ROW_TYPE, _REDUCED_TYPE
            self._arrays = _Arrays(*(Rows(dtype, width, self._limit) for dtype in types))
        return self._arrays


def evidence(features: Float[np.ndarray, "b embed_dim"], heads: Sequence[Head]) -> list[Evidence]:
    """Return for each image what its own model says of it.

    Of each array one gather of the rows of all models in the batch, and one multiplication of all
    features with them; each image then reads its own share. All heads are of one store.
    """
    models = list(dict.fromkeys(heads))
    full = [_Range(head.start, head.count) for head in models]
    reduced = [head.reduced for head in models]
    arrays = heads[0].arrays
    cosines = _multiplied(features, arrays.full, full)
    others = _multiplied(features, arrays.reduced, reduced)
    places = dict(zip(models, zip(_places(full), _places(reduced), strict=True), strict=True))
    found = []
    for index, head in enumerate(heads):
        own, rest = places[head]
        logits = head.logit_scale * cosines[index, own]
        found.append(
            read_evidence(logits, others[index, rest], head.logit_scale)
            if head.reduced.rows
            else Evidence(logits)
        )
    return found


def _multiplied(
    features: Float[np.ndarray, "b embed_dim"], rows: Rows, ranges: Sequence[_Range]
) -> Float[np.ndarray, "b n_rows"]:
    """Return the products of all features with the rows of the ranges, one after the other."""
    chosen = np.concatenate([np.arange(own.start, own.start + own.rows) for own in ranges])
    gathered = np.take(rows.values, chosen, axis=0)
    if not len(rows.scales):
        return features @ gathered.T
    return products(features, gathered, rows.scales[chosen])


def _places(ranges: Sequence[_Range]) -> list[slice]:
    """Return where the rows of each range stand among those of all."""
    ends = np.cumsum([own.rows for own in ranges]).tolist()
    return [slice(end - own.rows, end) for own, end in zip(ranges, ends, strict=True)]
