"""A whole service, run and stopped as a person at a terminal does."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.services import wait_for

SHOTLINE = [sys.executable, "-m", "app.cli.main"]


class Service(NamedTuple):
    """A running `shotline up`; `key` is empty where it printed none."""

    process: "subprocess.Popen[bytes]"
    home: Path
    address: str
    key: str
    said: str

    def get(self, path: str) -> Any:
        request = urllib.request.Request(
            self.address + path, headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def service_up(home: Path) -> Iterator[Service]:
    """Run `shotline up` on a free port until the block ends, then press Ctrl-C."""
    home.mkdir(exist_ok=True)
    output = home / "said"
    command = [*SHOTLINE, "up", "--data", str(home), "--port", "0"]
    with (
        output.open("wb") as stdout,
        subprocess.Popen(command, stdout=stdout, start_new_session=True) as process,
    ):
        try:
            wait_for(
                lambda: "Ctrl-C" in output.read_text() or process.poll() is not None,
                "`shotline up`",
            )
            assert process.poll() is None, f"it ended: {output.read_text()}"
            said = output.read_text()
            address = re.search(r"Shotline is at (http://\S+)", said)
            key = re.search(r"shown this once: (\S+)", said)
            assert address
            yield Service(process, home, address[1], key[1] if key else "", said)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
