"""Nothing dials out: the whole job in a network namespace that has a loopback and nothing else."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In every Python process of the job: what asks for an address beside this machine is written down.
WATCH = """
import ipaddress, os, sys

def near(address):
    if not isinstance(address, tuple):
        return True  # a socket of the file system
    host = address[0]
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback or host in ("0.0.0.0", "::")
    except ValueError:
        return False

def watch(event, args):
    address = {"socket.connect": lambda: args[1], "socket.sendto": lambda: args[1],
               "socket.getaddrinfo": lambda: (args[0], args[1]),
               "socket.gethostbyname": lambda: (args[0], 0)}.get(event)
    if address is not None:
        with open(os.environ["SHOTLINE_TEST_DIALLED"], "a") as file:
            print(near(address()), event, address(), " ".join(sys.orig_argv)[:200], file=file)

sys.addaudithook(watch)
"""
FAR = re.compile(r"connect\(.*sa_family=AF_INET6?, .*")
LOOPBACK = re.compile(r'inet_addr\("127\.|"::1"|"::ffff:127\.')


def _has_namespaces() -> bool:
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    command = ["unshare", "--map-root-user", "--net", "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _has_namespaces(), reason="this account may make no network namespace")
def test_the_whole_job_without_a_network(tmp_path: Path) -> None:
    watched = tmp_path / "watch"
    watched.mkdir()
    (watched / "sitecustomize.py").write_text(WATCH)
    dialled, traced = tmp_path / "dialled", tmp_path / "traced"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
        "PYTHONPATH": f"{watched}:{ROOT}",
        "SHOTLINE_TEST_DIALLED": str(dialled),
        # What a factory's shell may hold must not matter either.
        "HTTPS_PROXY": "",
    }
    job = [sys.executable, "-m", "tests.e2e.main_job", str(tmp_path / "job")]
    (tmp_path / "job").mkdir()
    if shutil.which("strace") is not None:  # what is not Python is seen, too
        job = [
            "strace",
            "-f",
            "-qq",
            "--seccomp-bpf",
            "-e",
            "trace=connect",
            "-o",
            str(traced),
            *job,
        ]
    script = 'ip link set lo up && exec "$@"'
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, "sh", *job],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    said = json.loads(ended.stdout)
    assert said["decision"] == "ng"
    assert "scratch" in said["results"]
    lines = dialled.read_text().splitlines()
    for process in ("app.cli.main serve", "worker.celery_app"):  # else nothing was watched
        assert any(process in line for line in lines), process
    assert [line for line in lines if not line.startswith("True")] == []
    if traced.exists():
        connects = FAR.findall(traced.read_text())
        assert connects, "strace saw no connection at all"
        assert [line for line in connects if not LOOPBACK.search(line)] == []
