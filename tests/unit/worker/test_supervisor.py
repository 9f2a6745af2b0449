"""What the supervisor makes of a child that died."""

import signal
import subprocess
import sys

import pytest

from worker.supervisor import _crash


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import sys; sys.exit(3)", "code 3"),
    ],
)
def test_every_death_is_put_into_words(command: str, shown: str) -> None:
    child = subprocess.run([sys.executable, "-c", command], check=False)
    failure = _crash(child.returncode, "tuning")
    assert shown in failure["problem"]
    assert failure["fix"]


def test_a_kill_is_told_from_a_crash() -> None:
    assert _crash(-signal.SIGKILL, "tuning") != _crash(-signal.SIGABRT, "tuning")
