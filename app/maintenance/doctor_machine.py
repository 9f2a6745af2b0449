"""What the doctor looks at on the machine: processor, memory, disks, files, versions, clock."""

import os
import platform
import stat
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version
from sqlalchemy import select

from app.core.clock import utc_now
from app.core.database import database_now
from app.core.disk import DiskWatch, shown_bytes, space
from app.core.ids import time_of
from app.core.settings import GIB, Settings
from app.core.tables import PredictionRecord
from app.maintenance import doctor_child
from app.maintenance.box_files import box_file
from app.maintenance.doctor import Box, Finding, Status

_LEAST_MEMORY, _GOOD_MEMORY = 2 * GIB, 7 * GIB
_FEW_FILES = 50_000
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"}
_YEARS = range(2026, 2100)
_CLOCKS_APART = timedelta(seconds=5)
# No setting of gateway or worker: read by the command line or by Compose.
_OTHER_VARIABLES = {
    "SHOTLINE_URL", "SHOTLINE_KEY", "SHOTLINE_CA_FILE", "SHOTLINE_TLS_NAME", "SHOTLINE_PUBLISH_TLS",
    "SHOTLINE_DATA", "SHOTLINE_WORKER_STOP_FILE",
    "SHOTLINE_IMAGE", "SHOTLINE_PUBLISH", "SHOTLINE_GPU_DEVICE", "SHOTLINE_GPU_BATCH",
    "SHOTLINE_SECRETS_FOLDER", "SHOTLINE_BACKBONES_FOLDER", "SHOTLINE_WORKER_STOP_GRACE",
}  # fmt: skip


class Mount(NamedTuple):
    """Where a volume is mounted, and how."""

    point: str
    kind: str
    options: frozenset[str]


def check_settings(box: Box) -> Iterator[Finding]:
    """Variables that nothing reads are slips of the keyboard; the gateway may be open to all."""
    known = {
        f"{concern.annotation.model_config.get('env_prefix', '')}{name.upper()}"  # type: ignore[union-attr]
        for concern in Settings.model_fields.values()
        for name in concern.annotation.model_fields  # type: ignore[union-attr]
    }
    known |= {f"{name}_FILE" for name in known} | _OTHER_VARIABLES
    for name in sorted(os.environ):
        if name.startswith("SHOTLINE_") and name not in known:
            yield Finding(
                "settings", "warning", f"Nothing reads the variable {name}.",
                "Correct its name, see docs/configuration.md, or remove it.",
            )  # fmt: skip
    yield Finding("settings", "ok", f"Everything is kept in {box.settings.home}.")
    if box.settings.auth.auth == "off":
        local = box.settings.server.host in ("127.0.0.1", "::1", "localhost")
        yield Finding(
            "settings",
            "warning" if local else "error",
            f"SHOTLINE_AUTH is off, and the gateway listens on {box.settings.server.host}: whoever"
            " reaches it may do everything.",
            "Set SHOTLINE_AUTH=on and make keys with `shotline keys create`.",
        )


def check_versions(_: Box) -> Iterator[Finding]:
    """Python and every package against what Shotline needs, and what it was tested with."""
    try:
        shotline = distribution("shotline")
    except PackageNotFoundError:
        yield Finding(
            "versions", "warning", "Shotline is not installed as a package.",
            "Install it with pip, from the checkout or from a bundle.",
        )  # fmt: skip
        return
    wrong = []
    for text in shotline.requires or []:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            wrong += _against(needed)
    for problem in wrong:
        yield Finding(
            "versions", "error", problem,
            "Install Shotline again, with --constraint constraints.txt or from a bundle.",
        )  # fmt: skip
    other = _other_than_tested()
    if other:
        yield Finding(
            "versions", "warning",
            f"{len(other)} packages are of other versions than Shotline is tested with:"
            f" {', '.join(other[:5])}{', …' if len(other) > 5 else ''}.",
            "Install with --constraint constraints.txt.",
        )  # fmt: skip
    yield Finding(
        "versions", "ok",
        f"Shotline {shotline.version}, Python {platform.python_version()},"
        f" PyTorch {version('torch')}, {platform.system()} {platform.release()}.",
    )  # fmt: skip


def _against(needed: Requirement) -> list[str]:
    try:
        there = version(needed.name)
    except PackageNotFoundError:
        return [f"The package {needed.name} is missing."]
    if Version(there) not in needed.specifier:
        return [f"{needed.name} is {there}; {needed.specifier} is needed."]
    return []


def _other_than_tested() -> list[str]:
    """Return what differs from constraints.txt."""
    found = []
    for line in box_file("constraints.txt").read_text(encoding="utf-8").splitlines():
        name, equals, tested = line.partition("==")
        if not equals:
            continue
        try:
            there = version(name.strip())
        except PackageNotFoundError:
            continue
        if Version(there).public != Version(tested.split(";")[0].strip()).public:
            found.append(f"{name} {there} ({tested})")
    return found


def check_processor(_: Box) -> Iterator[Finding]:
    """Cores, and instructions that decide how fast it is without a GPU."""
    text = _read("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    cores = len(os.sched_getaffinity(0))
    about = f"{cores} cores, {names[0] if names else platform.machine()}"
    if platform.machine() == "x86_64" and "avx2" not in flags:
        yield Finding(
            "processor", "warning", f"{about}, without AVX2: predictions take several times as"
            " long.", "Take a processor of 2013 or later, or let the virtual machine show it all.",
        )  # fmt: skip
    elif cores < 2:
        yield Finding(
            "processor", "warning", f"{about}: a tuning and the line share a single core.",
            "Give it at least 2.",
        )  # fmt: skip
    else:
        vnni = bool({"avx512_vnni", "avx_vnni"} & flags)
        more = "; INT8 is worth a try (`shotline quantize`)" if vnni else ""
        yield Finding("processor", "ok", f"{about}{more}.")


def check_memory(_: Box) -> Iterator[Finding]:
    """What there is in all, what is free, and what a container may take."""
    facts = {
        line.split(":")[0]: int(line.split()[1]) * 1024
        for line in _read("/proc/meminfo").splitlines()
        if len(line.split()) >= 2
    }
    total, free = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdecimal() and int(limit) < total:
        used = _read("/sys/fs/cgroup/memory.current").strip()
        total = int(limit)
        free = min(free, total - int(used or 0))
    about = f"{shown_bytes(free)} of {shown_bytes(total)} are free"
    if free < _LEAST_MEMORY:
        yield Finding(
            "memory", "warning", f"{about}; a tuning takes about 2 GB.",
            "End what else runs here, or add memory.",
        )  # fmt: skip
    elif total < _GOOD_MEMORY:
        yield Finding("memory", "warning", f"{about}; 8 GB are recommended.", "Add memory.")
    else:
        yield Finding("memory", "ok", f"{about}.")


def check_disks(box: Box) -> Iterator[Finding]:
    """Space and files left where the service writes, and what kind of volumes these are."""
    watch = DiskWatch(box.settings.written_folders, box.settings.storage)
    state, sentence = watch.state()
    status: Status = "error" if state == "reserve" else "warning" if state == "low" else "ok"
    fix = "Free space: docs/operations.md says what may go." if state != "ok" else None
    yield Finding("disk", status, f"{sentence}.", fix)
    for name, folder in box.settings.written_folders.items():
        mount = _mount_of(folder)
        if mount is not None:
            yield from _mount_findings(name, mount)
        one = space(name, folder)
        if one.files is not None and 0 < one.files < _FEW_FILES:
            yield Finding(
                "disk", "warning", f"Only {one.files} more files fit on the disk for {name}.",
                "Remove files, or make the file system anew with more inodes.",
            )  # fmt: skip


def _mount_findings(name: str, mount: Mount) -> Iterator[Finding]:
    if "ro" in mount.options:
        yield Finding(
            "disk", "error", f"The volume of {name}, {mount.point}, is mounted read-only.",
            "See `dmesg`: Linux does so after errors of the disk. Mount it for writing.",
        )  # fmt: skip
    if mount.kind in ("tmpfs", "ramfs"):
        yield Finding(
            "disk", "warning", f"The volume of {name}, {mount.point}, is in memory ({mount.kind}):"
            " a power cut takes all of it.", "Keep it on a disk.",
        )  # fmt: skip
    if mount.kind in _NETWORK:
        worse: Status = "error" if name == "the database" else "warning"
        yield Finding(
            "disk", worse, f"The volume of {name}, {mount.point}, is on the network"
            f" ({mount.kind}); SQLite is not safe there.",
            "Keep it on a disk of this machine, or use PostgreSQL.",
        )  # fmt: skip


def _mount_of(folder: Path) -> Mount | None:
    there = os.path.realpath(folder)
    best: Mount | None = None
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, more = left.split(), right.split()
        point = fields[4].replace("\\040", " ")
        inside = there == point or there.startswith(point.rstrip("/") + "/")
        # Later lines lie on top of earlier ones.
        if inside and (best is None or len(point) >= len(best.point)):
            options = {*fields[5].split(","), *more[2].split(",")}
            best = Mount(point, more[0], frozenset(options))
    return best


def check_files(box: Box) -> Iterator[Finding]:
    """The data folder: there, writable, and closed to others; secrets that all could read."""
    home = box.settings.home
    if not home.exists():
        yield Finding(
            "files", "warning", f"The data folder {home} does not exist yet.",
            "Start the service, or name another with --data or SHOTLINE_HOME.",
        )  # fmt: skip
    elif not os.access(home, os.W_OK | os.X_OK):
        yield Finding(
            "files", "error", f"This account may not write to the data folder {home}.",
            f"Run the doctor as the account of the service, or give it the folder: chown {home}.",
        )  # fmt: skip
    else:
        yield from _open_files(home)
    for variable in sorted(os.environ):
        path = Path(os.environ[variable])
        # Compose mounts secrets readable for all into a container that has no others.
        if not variable.startswith("SHOTLINE_") or not variable.endswith("_FILE"):
            continue
        if str(path).startswith("/run/secrets/"):
            continue
        if not path.is_file():
            yield Finding(
                "files", "error", f"{variable} names {path}, which is no file.", "Correct it."
            )
        elif path.stat().st_mode & stat.S_IROTH and not _closed_above(path):
            yield _readable(path)


def _open_files(home: Path) -> Iterator[Finding]:
    mode = home.stat().st_mode
    if mode & stat.S_IWOTH:
        yield Finding(
            "files", "error", f"Everyone on this machine may write to {home}.", f"chmod o-w {home}"
        )
    secrets = [*home.glob("*.key"), home / "shotline.db", home / "idempotency.db"]
    opened = [] if _closed_above(home / "x") or _in_container() else [
        path for path in secrets if path.is_file() and path.stat().st_mode & stat.S_IROTH
    ]  # fmt: skip
    if opened:
        names = ", ".join(path.name for path in opened)
        yield Finding(
            "files", "warning", f"Everyone on this machine may read {names} in {home}.",
            f"chmod 700 {home}",
        )  # fmt: skip
    elif not mode & stat.S_IWOTH:
        yield Finding("files", "ok", f"{home} can be written, and others cannot look into it.")


def _readable(path: Path) -> Finding:
    return Finding(
        "files", "warning", f"Everyone on this machine may read the secret {path}.",
        f"chmod 600 {path}",
    )  # fmt: skip


def _closed_above(path: Path) -> bool:
    """Say whether others cannot get to the file, whatever its own mode is."""
    return any(not parent.stat().st_mode & stat.S_IXOTH for parent in path.absolute().parents)


def _in_container() -> bool:
    return Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def check_clock(box: Box) -> Iterator[Finding]:
    """Years that cannot be, jumps, the database's clock, and records from the future."""
    now = utc_now()
    if now.year not in _YEARS:
        yield Finding(
            "clock", "error", f"It is {now:%Y-%m-%d %H:%M} UTC on this machine.",
            "Set the clock: `timedatectl set-time …`, and let it be kept right by NTP.",
        )  # fmt: skip
    wall, steady = time.time(), time.monotonic()
    time.sleep(0.5)
    jump = (time.time() - wall) - (time.monotonic() - steady)
    if abs(jump) > 0.1:
        yield Finding(
            "clock", "warning", f"The clock jumped by {jump:+.1f} s while it was looked at.",
            "See what sets it: two services for the time, or a virtual machine's tools.",
        )  # fmt: skip
    if box.database is None:
        yield Finding("clock", "ok", f"{now:%Y-%m-%d %H:%M:%S} UTC.")
        return
    with box.database.reading() as session:
        theirs = session.execute(select(database_now())).scalar_one()
        row = PredictionRecord.id
        newest = session.scalar(select(row).order_by(row.desc()).limit(1))
    yield _clocks(theirs - utc_now())
    if newest is not None and time_of(newest) > time.time() + 3600:
        yield Finding(
            "clock", "error", "There are predictions from the future: the clock was ahead, or is"
            " behind now.", "Set the clock; until then new predictions are listed before those.",
        )  # fmt: skip


def _clocks(apart: timedelta) -> Finding:
    seconds = apart.total_seconds()
    if abs(apart) > _CLOCKS_APART:
        return Finding(
            "clock", "warning" if abs(seconds) < 60 else "error",
            f"The database's clock differs from this machine's by {seconds:+.0f} s.",
            "Let both be set by NTP: ids sort by this machine's, leases go by the database's.",
        )  # fmt: skip
    return Finding(
        "clock", "ok", f"{utc_now():%Y-%m-%d %H:%M:%S} UTC; the database's is {seconds:+.1f} s off."
    )


def check_device(box: Box) -> Iterator[Finding]:
    """The device that is configured computes; a GPU that cannot be used is told with the reason."""
    wanted = box.settings.backbone.device
    answer = doctor_child.ask("device", wanted, seconds=80.0)
    gpus = answer.get("gpus", [])
    driver = answer.get("driver") or _about_cuda(answer["said"])
    if "error" in answer or not answer.get("correct", False):
        reason = answer.get("error") or "it multiplied two matrices wrongly"
        if driver and driver not in reason:
            reason = f"{reason} ({driver})"
        yield Finding(
            "device", "error", f"SHOTLINE_BACKBONE_DEVICE is {wanted!r}, and it cannot be used:"
            f" {reason}", "Check the driver with `nvidia-smi`, or set the device to cpu.",
        )  # fmt: skip
    elif not gpus and Path("/dev/nvidiactl").exists() and wanted == "auto":
        yield Finding(
            "device", "warning", "There is an NVIDIA GPU, and PyTorch cannot use it:"
            f" {driver or 'this PyTorch is built without CUDA'}",
            "Update the driver; or set SHOTLINE_BACKBONE_DEVICE=cpu to say that this is meant.",
        )  # fmt: skip
    else:
        shown = f"{', '.join(gpus)}, {shown_bytes(answer['free'])} free" if gpus else "no GPU"
        used = answer["device"]
        yield Finding("device", "ok", f"PyTorch {answer['torch']} computes on {used}; {shown}.")


def _about_cuda(said: str) -> str:
    """Return what PyTorch warned of the driver."""
    lines = [line.strip() for line in said.splitlines() if "CUDA" in line or "NVIDIA" in line]
    return lines[0][:400] if lines else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def check_account(_: Box) -> Iterator[Finding]:
    """As whom the doctor runs, and how many files a process may have open."""
    import resource  # noqa: PLC0415 - Unix alone

    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < 1024:
        yield Finding(
            "account", "warning", f"A process may have {soft} files open; each connection is one.",
            "Raise it to 4096 or more (`ulimit -n`, LimitNOFILE=).",
        )  # fmt: skip
    else:
        who = f"uid {os.getuid()}, up to {soft} open files, {sys.executable}"
        yield Finding("account", "ok", f"{who}.")
