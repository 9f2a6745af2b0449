import platform
import subprocess
import sys

import pytest

# Prints how many pages the kernel handed out while 64 MiB were taken and left ten times over, in
# the main thread and in one that started later. The rounds in which the heap grows do not count.
_PAGES = """
import resource, sys, threading
import torch
from models.memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def pages():
    for round in range(20):
        if round == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(2**24)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

pages()
thread = threading.Thread(target=pages)
thread.start()
thread.join()
"""


def _pages(mode: str) -> list[int]:
    command = [sys.executable, "-c", _PAGES, mode]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(line) for line in answer.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_used_again_in_every_thread() -> None:
    kept, given_back = _pages("keep"), _pages("give back")
    assert len(kept) == len(given_back) == 2
    for pages in kept:
        assert pages < min(given_back) / 10
