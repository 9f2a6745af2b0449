"""`python -m app.maintenance.doctor_child device|backbone`: what the doctor asks of PyTorch.

A process of its own: a driver that hangs is killed with it. The answer is one line of JSON on
standard output; what libraries say to standard error is passed on to whoever asks.
"""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

_ENDED_EARLY = "The process that asks PyTorch ended early"


def ask(what: str, *args: str, seconds: float) -> dict[str, Any]:
    """Ask in a process of its own.

    Raises:
        TimeoutError: no answer in time; the process is killed.
        RuntimeError: it ended without an answer.
    """
    command = [sys.executable, "-m", __name__, what, *args]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    child = subprocess.Popen(  # noqa: S603 - this very module
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        out, said = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        with suppress(subprocess.TimeoutExpired):  # in an uninterruptible sleep it does not end
            child.communicate(timeout=1)
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    for line in reversed(out.splitlines()):
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
            return answer | {"said": said.strip()[-2000:]}
    last = (said.strip().splitlines() or ["it said nothing"])[-1]
    raise RuntimeError(f"{_ENDED_EARLY} (exit code {child.returncode}): {last}")


def device(name: str) -> dict[str, Any]:
    """Return what PyTorch says of its devices, and whether the one that is configured computes."""
    import torch  # noqa: PLC0415 - seconds

    answer: dict[str, Any] = {"torch": torch.__version__, "cuda_build": torch.version.cuda}
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        answer["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
        answer["free"], answer["total"] = torch.cuda.mem_get_info()
    elif torch.version.cuda is not None:
        try:
            torch.cuda.init()
        except (RuntimeError, AssertionError) as error:
            answer["driver"] = str(error).strip()
    chosen = name
    if name == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    answer["device"] = chosen
    try:
        matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=chosen)
        answer["correct"] = (matrix @ matrix).tolist() == [[7.0, 10.0], [15.0, 22.0]]
    except (RuntimeError, AssertionError) as error:
        answer["error"] = str(error).strip()
    return answer


def backbone(source: str) -> dict[str, Any]:
    """Load the backbone as the gateway would, on the CPU, and return its digest."""
    from models.backbone_source import load_backbone  # noqa: PLC0415 - torch
    from models.errors import ShotlineError  # noqa: PLC0415

    started = time.monotonic()
    try:
        loaded = load_backbone(source, device="cpu", offline=True)
    except ShotlineError as error:
        return {"problem": error.problem, "fix": error.fix}
    return {"digest": loaded.digest, "seconds": time.monotonic() - started}


if __name__ == "__main__":
    # Libraries that print to standard output must not stand in the answer's way.
    answer = {"device": device, "backbone": backbone}[sys.argv[1]](*sys.argv[2:])
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
