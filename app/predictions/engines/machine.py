"""What an engine's speed and rounding depend on beside the backbone."""

import hashlib
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Anything about the kept files or the choice that an older version would read wrongly.
_FORMAT = 1
_PACKAGES = ("torch", "open_clip_torch", "openvino", "onnxruntime", "onnxscript", "onnx")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def key(*parts: object) -> str:
    """Return a name for what was found on this machine, with these libraries, for `parts`."""
    facts = [_FORMAT, _processor(), _gpu(), {name: _version(name) for name in _PACKAGES}, *parts]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:32]


def _processor() -> list[str]:
    """Return the processor's name and its instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    wanted = ("model name", "flags", "Features")  # the last two on x86 and on Arm
    return [platform.machine(), *dict.fromkeys(line for line in lines if line.startswith(wanted))]


def _gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
