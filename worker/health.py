"""`python -m worker.health`: whether the worker of this host can do its work.

Two things are asked: that this very worker answers through the broker, and that the device which
its tunings would use computes. The exit code is 0, or 1 with the reason on standard error; the
process is meant to be started anew for each check and killed when it hangs. A worker that has lost
its device is unhealthy until that computes again. With `--device` the device alone is asked.
"""

import os
import sys
from collections.abc import Callable
from typing import Final

import torch
from celery import Celery
from celery.utils.nodenames import default_nodename

from app.core.errors import Unavailable
from app.core.settings import QueueSettings, Settings
from models.errors import ShotlineError
from worker.device import DeviceRecord

_SECONDS: Final = 10.0


def check_worker(settings: QueueSettings, *, seconds: float = _SECONDS) -> None:
    """Ask the worker of this host, by name, for a sign of life; a running tuning is no obstacle.

    Raises:
        Unavailable: the broker cannot be reached, or this worker does not answer.
    """
    name = default_nodename(None)
    client = Celery("shotline", broker=settings.url.get_secret_value())
    client.conf.broker_transport_options = {
        "socket_connect_timeout": seconds,
        "socket_timeout": seconds,
        "max_retries": 0,
    }
    try:
        answers = client.control.ping(destination=[name], timeout=seconds)
    except Exception as error:  # whatever the broker's client raises
        why = str(error).rstrip(".")
        raise Unavailable(
            f"The broker cannot be reached: {why}.", fix="Check that Redis runs."
        ) from error
    finally:
        client.close()
    if not answers:
        raise Unavailable(
            f"The worker {name} did not answer within {seconds:g} seconds.",
            fix="See its log; start it again.",
        )


def check_device(name: str) -> None:
    """Multiply two small matrices on the device and compare with the product by hand.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`, as SHOTLINE_BACKBONE_DEVICE says.

    Raises:
        Unavailable: there is no such device, it does not compute, or it computes wrongly.
    """
    chosen = name
    if name == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=chosen)
        product = (matrix @ matrix).tolist()
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts
        raise Unavailable(
            f"The device {name!r} cannot be used: {error}",
            fix="Check the driver with nvidia-smi, or set SHOTLINE_BACKBONE_DEVICE=cpu.",
            field="SHOTLINE_BACKBONE_DEVICE",
        ) from error
    if product != [[7.0, 10.0], [15.0, 22.0]]:
        raise Unavailable(
            f"The device {name!r} computes wrongly: {product}.",
            fix="Check its memory and its temperature; use another device.",
            field="SHOTLINE_BACKBONE_DEVICE",
        )


def main(*, worker: bool = True) -> int:
    """Ask both, or the device alone, and say so."""
    os.nice(5)  # behind predictions, before a tuning: a busy machine is no reason to fail
    settings = Settings()

    def ask_worker() -> None:
        DeviceRecord.of(settings).check()
        check_worker(settings.queue)

    checks: dict[str, Callable[[], None]] = {"worker": ask_worker} if worker else {}
    checks["device"] = lambda: check_device(settings.backbone.device)
    for name, check in checks.items():
        try:
            check()
        except ShotlineError as error:
            sys.stderr.write(f"{name}: {error}\n")
            return 1
        sys.stdout.write(f"{name}: ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(worker="--device" not in sys.argv))
