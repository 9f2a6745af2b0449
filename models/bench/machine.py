"""What results were made on, and the memory that they took."""

import contextlib
import platform
import resource
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from models.backbone import Backbone
from models.bench.results import BackboneMeta, Meta

# CPU threads of all that does not fix its own number, whatever the machine has.
THREADS = 1

_PACKAGES = ("shotline", "torch", "open_clip_torch", "numpy", "scipy", "scikit-learn", "pillow")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(backbone: Backbone, command: str, datasets: dict[str, str]) -> Meta:
    """Return what is written beside the results."""
    cuda = backbone.device.type == "cuda"
    return Meta(
        versions={"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        backbone=BackboneMeta(
            name=backbone.source,
            digest=backbone.digest,
            embed_dim=backbone.embed_dim,
            precision=backbone.precision,
        ),
        device=backbone.device.type,
        cpu=_cpu(),
        gpu=torch.cuda.get_device_name(backbone.device) if cuda else None,
        threads=THREADS,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        datasets=datasets,
    )


def forget_peak() -> None:
    """Begin to measure the peak of this process's memory anew, where the system can."""
    with contextlib.suppress(OSError):
        _RESET.write_text("5")


def peak_mb() -> float:
    """Return the peak of this process's memory in MiB."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # run from a folder, without being installed
        return "unknown"


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
