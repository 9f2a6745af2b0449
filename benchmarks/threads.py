"""A step of tuning on two threads while others want the cores: threads that spin or sleep.

Run with `python -m benchmarks.threads`; about a minute on two cores.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.common import write_results

_RUNS, _STEPS, _PROMPTS, _POSITIONS = 5, 20, 7, 14
_BUSY = "while True: sum(range(100_000))"


def main(child: bool = False) -> None:
    """Print medians of runs side by side and write `benchmarks/results/threads.json`."""
    if child:
        print(_milliseconds())
        return
    results = {}
    for load, others in (("idle", 0), ("beside two busy processes", 2)):
        with _others(others):
            for name, threads, policy in (
                ("one thread", 1, "PASSIVE"),
                ("two threads that spin", 2, "ACTIVE"),
                ("two threads that sleep", 2, "PASSIVE"),
            ):
                runs = [_run(threads, policy) for _ in range(_RUNS)]
                results[f"{name}, {load}"] = {"median_ms": median(runs), "runs_ms": runs}
    table = Table("Text tower, forward and backward", "median ms", title="A step of tuning")
    for name, result in results.items():
        table.add_row(name, f"{result['median_ms']:.1f}")
    Console().print(table)
    write_results("threads", {"steps": _STEPS, "prompts": _PROMPTS, "results": results})


def _run(threads: int, policy: str) -> float:
    environment = {**os.environ, "OMP_WAIT_POLICY": policy, "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "benchmarks.threads", "--child"]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)  # noqa: S603
    return float(answer.stdout)


def _milliseconds() -> float:
    import torch  # noqa: PLC0415 - after the variables of OpenMP are set

    from models.backbone_source import load_backbone  # noqa: PLC0415
    from models.text_encoder import Prompts  # noqa: PLC0415

    text = load_backbone(device="cpu").text
    embeddings = torch.randn(_PROMPTS, _POSITIONS, text.width, requires_grad=True)
    prompts = Prompts(embeddings, torch.full((_PROMPTS,), _POSITIONS - 1))
    times = []
    for _ in range(_STEPS):
        start = time.perf_counter()
        text(prompts).square().sum().backward()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)


@contextmanager
def _others(count: int) -> Iterator[None]:
    """Keep the cores busy with so many processes."""
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    typer.run(main)
