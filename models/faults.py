"""What a device says when it fails: out of memory, or lost.

By the names and words of PyTorch and CUDA, so that those who only ask need not load PyTorch. After
"out of memory" a smaller piece of work may fit; after anything else that CUDA reports, no process
that used the device can go on with it, and perhaps none at all.
"""

from collections.abc import Iterator
from typing import Literal

from models.errors import DeviceUnavailable, OutOfMemory

Fault = Literal["memory", "lost"]

# cuBLAS that finds no room for its workspace says that it is not initialised.
_MEMORY = (
    *("out of memory", "not enough memory", "can't allocate memory"),
    *("STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED"),
)
_LOST = ("CUDA error", "CUDA driver error", "CUDNN_STATUS", "CUBLAS_STATUS", "NVML", "nvml")


def fault_of(error: BaseException) -> Fault | None:
    """Return which fault of a device `error` tells of, or was caused by; None for any other."""
    return next((fault for each in _causes(error) if (fault := _fault(each))), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _fault(error: BaseException) -> Fault | None:
    if isinstance(error, OutOfMemory | MemoryError):
        return "memory"
    if isinstance(error, DeviceUnavailable):
        return "lost"
    if not isinstance(error, RuntimeError):  # as all that PyTorch says of devices is
        return None
    names, text = {kind.__name__ for kind in type(error).__mro__}, str(error)
    if "OutOfMemoryError" in names or any(words in text for words in _MEMORY):
        return "memory"
    if "AcceleratorError" in names or any(words in text for words in _LOST):
        return "lost"
    return None
