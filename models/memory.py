"""How the C library deals with memory that tensors leave behind, and Python with its objects."""

import ctypes
import gc
import platform

# Names and numbers of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEEP, _FROM_THE_HEAP = 2**31 - 1, 2**30  # bytes; the first is the largest that mallopt takes


def keep_freed_memory() -> bool:
    """Make this process use freed memory again instead of giving it back to the kernel.

    A convolution's outputs are megabytes that live for milliseconds. By default glibc returns such
    blocks at once, and the kernel hands them out again a zeroed page at a time, which can cost more
    than the convolution (`python -m benchmarks.memory`). Afterwards the process stays as large as
    it ever was. One arena serves all threads, since the others cannot hold blocks of this size;
    only threads that start later use it, so call this early. Calling it again does nothing more.

    Returns whether it was done: elsewhere than on glibc nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [
        mallopt(_M_MMAP_THRESHOLD, _FROM_THE_HEAP),
        mallopt(_M_TRIM_THRESHOLD, _KEEP),
        mallopt(_M_ARENA_MAX, 1),
    ]
    return all(done)


def settle() -> None:
    """Never look again at the objects that are there now, once what stays has been loaded.

    Python's collector else walks through all of them again and again, and holds everything up for
    as long: a hundred milliseconds every few seconds in a gateway under load.
    """
    gc.collect()
    gc.freeze()
