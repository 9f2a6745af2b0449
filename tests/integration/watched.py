"""A process whose attempts to reach the network, and whose files in its home folder, are seen."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Variables that these libraries take for a wish to be left alone.
SILENCING = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")

# Records and refuses whatever asks for the network, in this process and in those it forks.
WATCHED = """
import os, sys

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        with open(os.environ["ATTEMPTS"], "a") as file:
            print(event, args[1:] if event == "socket.connect" else args, file=file)
        raise OSError("no network in this test")

sys.addaudithook(watch)
"""


def run_watched(code: str, tmp_path: Path) -> tuple[list[str], list[Path]]:
    """Run `code`; return its attempts to reach the network, and the files in its home folder."""
    home, attempts = tmp_path / "home", tmp_path / "attempts"
    home.mkdir(parents=True)
    attempts.touch()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in SILENCING and not name.startswith("XDG_")
    }
    environment |= {"HOME": str(home), "ATTEMPTS": str(attempts), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", WATCHED + code], env=environment, cwd=ROOT, check=True, timeout=300
    )
    return attempts.read_text().splitlines(), [path for path in home.rglob("*") if path.is_file()]
