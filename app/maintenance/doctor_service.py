"""What the doctor looks at of the service: database, Redis, gateway, worker, keys, jobs …."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlsplit

import httpx2
import redis
from celery import Celery
from pydantic import ValidationError
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app import migrations
from app.core.clock import utc_now
from app.core.database import Database, database_now
from app.core.disk import shown_bytes
from app.core.jobs import KINDS
from app.core.queue import redis_refusal
from app.core.tables import Alias, ApiKey, ModelVersion
from app.maintenance import doctor_child
from app.maintenance.backup import LAST_BACKUP
from app.maintenance.doctor import Box, Check, Finding
from app.maintenance.doctor_machine import (
    check_account,
    check_clock,
    check_device,
    check_disks,
    check_files,
    check_memory,
    check_processor,
    check_settings,
    check_versions,
)
from app.predictions.engines.store import Choice
from app.predictions.engines.store import check_files as check_engine_files
from app.registry.service import PRODUCTION

_BACKUP_DAYS = 7
_KEY_DAYS = 30
_LONG_QUEUED = timedelta(hours=1)
_LOOPBACK = {"127.0.0.1", "::1", "localhost", None}


def check_database(box: Box) -> Iterator[Finding]:
    """Reachable, at this version's revision, and whole."""
    database = box.database
    if database is None:
        yield Finding(
            "database", box.silence, f"There is no database yet: {box.sqlite_file}.",
            "Start `shotline up`, or run `shotline migrate`.",
        )  # fmt: skip
        return
    found, expected = migrations.current(database), migrations.head()
    if found != expected:
        newer = found is not None and (expected is None or found > expected)
        yield Finding(
            "database", "error", f"The database is at revision {found!r}; this version needs"
            f" {expected!r}.",
            "Go back to the newer version of Shotline, or restore the backup before it." if newer
            else "Take a backup, then run `shotline migrate`.",
        )  # fmt: skip
    with database.reading() as session:
        yield from _sqlite(session, box.sqlite_file) if box.sqlite_file else _postgres(session)


def _sqlite(session: Session, path: Path) -> Iterator[Finding]:
    said = [str(row[0]) for row in session.execute(text("PRAGMA quick_check(5)"))]
    if said != ["ok"]:
        yield Finding(
            "database", "error", f"{path} is damaged: {'; '.join(said)[:300]}.",
            "Stop the service, keep a copy of the file, and restore a backup; check the disk.",
        )  # fmt: skip
        return
    size = path.stat().st_size
    yield Finding("database", "ok", f"SQLite, {shown_bytes(size)}, whole.")


def _postgres(session: Session) -> Iterator[Finding]:
    server = session.scalar(text("SHOW server_version"))
    name, size, failures = session.execute(
        text(
            "SELECT datname, pg_database_size(oid), (SELECT checksum_failures FROM"
            " pg_stat_database s WHERE s.datid = d.oid) FROM pg_database d"
            " WHERE datname = current_database()"
        )
    ).one()
    used, most = session.execute(
        text("SELECT count(*), current_setting('max_connections')::int FROM pg_stat_activity")
    ).one()
    if failures:
        yield Finding(
            "database", "error", f"PostgreSQL found {failures} damaged pages in {name}.",
            "Restore a backup, and check the disk.",
        )  # fmt: skip
    if used > 0.8 * most:
        yield Finding(
            "database", "warning", f"{used} of PostgreSQL's {most} connections are taken.",
            "Raise max_connections, or lower SHOTLINE_DATABASE_POOL_SIZE.",
        )  # fmt: skip
    yield Finding(
        "database", "ok", f"PostgreSQL {server}, {name}, {shown_bytes(size)}, {used} connections."
    )


def check_redis(box: Box) -> Iterator[Finding]:
    """Reachable, keeps what it is told, and has room for more."""
    try:
        with _celery(box) as app, app.connection_for_write() as broker:
            client: redis.Redis = broker.default_channel.client
            info: dict[str, Any] = client.info()
    except Exception as error:  # noqa: BLE001 - whatever the client raises
        yield Finding(
            "redis", box.silence, f"Redis does not answer at {_shown(box.queue_url)}:"
            f" {_reason(error)}.",
            "Start it, or correct SHOTLINE_QUEUE_URL. Predictions go on without it.",
        )  # fmt: skip
        return
    refusal = redis_refusal(info)
    if refusal is not None:
        yield Finding(
            "redis", "error", f"Redis takes no messages: {refusal}.", "Give it memory or disk."
        )
    policy, limit = info.get("maxmemory_policy"), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        yield Finding(
            "redis", "error", f"Redis' maxmemory-policy is {policy!r}: it may drop messages.",
            "Set `maxmemory-policy noeviction`.",
        )  # fmt: skip
    if not info.get("aof_enabled"):
        yield Finding(
            "redis", "warning", "Redis keeps no append-only file: messages are gone after its"
            " restart, and are sent again after a minute.", "Set `appendonly yes`.",
        )  # fmt: skip
    if limit and info["used_memory"] > 0.8 * limit:
        yield Finding(
            "redis", "warning", f"Redis uses {shown_bytes(info['used_memory'])} of the"
            f" {shown_bytes(limit)} that it may.", "Raise maxmemory.",
        )  # fmt: skip
    address = urlsplit(box.queue_url)
    if address.scheme == "redis" and address.hostname not in _LOOPBACK and not address.password:
        yield Finding(
            "redis", "warning", f"Redis at {address.hostname} takes everyone without a password.",
            "Set requirepass, and the password in SHOTLINE_QUEUE_URL_FILE.",
        )  # fmt: skip
    used = shown_bytes(info["used_memory"])
    yield Finding("redis", "ok", f"Redis {info['redis_version']}, {policy}, {used} used.")


_TIMEOUTS = {"socket_connect_timeout": 3, "socket_timeout": 5, "max_retries": 0}


def check_storage(box: Box) -> Iterator[Finding]:
    """The folder of images and models takes a file, which has no name and is gone at once."""
    folder = box.settings.blob_folder
    if not folder.exists():
        yield Finding(
            "storage", "ok" if not box.expected else "warning", f"{folder} does not exist yet.",
            None if not box.expected else "It is made with the first upload.",
        )  # fmt: skip
        return
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        yield Finding(
            "storage", "error", f"{folder} cannot be written: {error.strerror}.",
            "Free space, or give the folder to the account of the service.",
        )  # fmt: skip
    else:
        yield Finding("storage", "ok", f"{folder} can be written.")


def check_gateway(box: Box) -> Iterator[Finding]:
    """What its `/readyz` says, and that it asks for a key."""
    try:
        # It is told nothing, and its certificate is for the names that others use.
        with httpx2.Client(base_url=box.url, timeout=8.0, trust_env=False, verify=False) as client:
            answer = client.get("/readyz")
            ready = answer.json()
            open_to_all = client.get("/v1/projects").status_code == 200
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        yield Finding(
            "gateway", box.silence, f"No gateway answers at {box.url}: {_reason(error)}.",
            "Start it, or name it with --url.",
        )  # fmt: skip
        return
    parts = ready.get("parts", {})
    bad = [f"{name} {state}" for name, state in parts.items() if state != "ok"]
    about = "; ".join(str(ready.get("about", {}).get(one.split()[0], "")) for one in bad).strip(
        "; "
    )
    if answer.status_code != 200 or bad:
        yield Finding(
            "gateway", "error" if answer.status_code != 200 else "warning",
            f"The gateway at {box.url} is {ready.get('status', answer.status_code)}:"
            f" {', '.join(bad) or 'it gives no reason'}{f' ({about})' if about else ''}.",
            "See its log, and what the other checks say of these parts.",
        )  # fmt: skip
    else:
        yield Finding("gateway", "ok", f"The gateway at {box.url} is ready.")
    if open_to_all:
        local = urlsplit(box.url).hostname in _LOOPBACK
        yield Finding(
            "gateway", "warning" if local else "error",
            f"The gateway at {box.url} answers without a key: authentication is off.",
            "Set SHOTLINE_AUTH=on and start it again.",
        )  # fmt: skip


def check_worker(box: Box) -> Iterator[Finding]:
    """Some worker answers through Redis."""
    with _celery(box) as client:
        try:
            answers = client.control.ping(timeout=3.0)
        except Exception as error:  # noqa: BLE001 - whatever the broker's client raises
            yield Finding(
                "worker", box.silence, f"No worker can be asked without Redis: {_reason(error)}.",
                "See what the check of Redis says.",
            )  # fmt: skip
            return
    if not answers:
        yield Finding(
            "worker", box.silence, "No worker answers: tunings and batches wait.",
            "Start one with `shotline worker`, or see its log.",
        )  # fmt: skip
    else:
        names = ", ".join(name for answer in answers for name in answer)
        yield Finding("worker", "ok", f"Answers: {names}.")


def check_backbone(box: Box) -> Iterator[Finding]:
    """It loads, and is the one that the versions in production were tuned on."""
    source = box.settings.backbone.name
    answer = doctor_child.ask("backbone", source, seconds=170.0)
    if "problem" in answer:
        yield Finding("backbone", "error", answer["problem"], answer["fix"])
        return
    digest = answer["digest"]
    about = f"{source} loads in {answer['seconds']:.1f} s, {digest[:19]}…"
    others = _of_other_backbones(box.database, digest)
    if others:
        yield Finding(
            "backbone", "warning", f"{about}; {others} projects have a version in production that"
            " was tuned on another backbone, and is refused.",
            "Set SHOTLINE_BACKBONE_SOURCE to that one, or tune these projects again.",
        )  # fmt: skip
    else:
        yield Finding("backbone", "ok", f"{about}.")


def _of_other_backbones(database: Database | None, digest: str) -> int:
    if database is None:
        return 0
    with database.reading() as session:
        query = (
            select(func.count())
            .select_from(Alias)
            .join(ModelVersion, ModelVersion.id == Alias.version_id)
            .where(Alias.name == PRODUCTION, ModelVersion.backbone_digest != digest)
        )
        return session.scalar(query) or 0


def check_engines(box: Box) -> Iterator[Finding]:
    """The image encoders that are kept are as they were written."""
    folder = box.settings.engine_folder
    kept = [path for path in folder.glob("*") if not path.name.startswith(".")]
    names = []
    for path in kept:
        try:
            choice = Choice.model_validate_json((path / "choice.json").read_bytes())
            check_engine_files(path, choice.files)
        except (OSError, ValueError, ValidationError) as error:
            yield Finding(
                "engines", "warning", f"The kept engine {path.name} is damaged: {_reason(error)}.",
                "Nothing: it is made anew at the gateway's next start, in half a minute.",
            )  # fmt: skip
        else:
            names.append(choice.engine)
    about = f"{len(names)} kept: {', '.join(sorted(names))}" if names else "none kept yet"
    yield Finding("engines", "ok", f"{box.settings.backbone.engine} is set; {about}.")


def check_keys(box: Box) -> Iterator[Finding]:
    """Somebody can administer, and no key expires unnoticed."""
    if box.database is None:
        yield Finding("keys", "ok", "There is no database yet.")
        return
    now = utc_now()
    with box.database.reading() as session:
        rows = session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None))).all()
    usable = [row for row in rows if row.expires_at is None or row.expires_at > now]
    if not any(row.role == "admin" and row.project_id is None for row in usable):
        yield Finding(
            "keys", box.silence, "There is no admin key that can be used.",
            'Make one on the box: `shotline keys create "me" --role admin`.',
        )  # fmt: skip
    soon = now + timedelta(days=_KEY_DAYS)
    for row in usable:
        if row.expires_at is not None and row.expires_at < soon:
            yield Finding(
                "keys", "warning", f"The key {row.name!r} ({row.prefix}…, {row.role}) expires on"
                f" {row.expires_at:%Y-%m-%d}.", "Make another, and give it to its holder.",
            )  # fmt: skip
    yield Finding("keys", "ok", f"{len(usable)} keys can be used.")


def check_jobs(box: Box) -> Iterator[Finding]:
    """Tunings and batches that nobody works on although they should be."""
    if box.database is None:
        yield Finding("jobs", "ok", "There is no database yet.")
        return
    told = []
    with box.database.reading() as session:
        for jobs in KINDS:
            row = jobs.table
            lost = row.lease_until < database_now(-60.0)
            counts = {
                "stuck": select(func.count()).where(row.state == "running", lost),
                "running": select(func.count()).where(row.state == "running"),
                "waiting": select(func.count()).where(row.state == "queued"),
                "old": select(func.count()).where(
                    row.state == "queued", row.created_at < utc_now() - _LONG_QUEUED
                ),
            }
            found = {name: session.scalar(query) or 0 for name, query in counts.items()}
            told.append(f"{found['running']} {jobs.noun} running, {found['waiting']} waiting")
            if found["stuck"]:
                yield Finding(
                    "jobs", "error", f"{found['stuck']} {jobs.noun}: running by the database, and"
                    " no worker has reported for over a minute.",
                    "Start gateway and worker: either puts lost jobs back into the queue.",
                )  # fmt: skip
            if found["old"]:
                yield Finding(
                    "jobs", "warning", f"{found['old']} {jobs.noun} waiting for over an hour.",
                    "See the check of the worker; one job is done at a time by each.",
                )  # fmt: skip
    yield Finding("jobs", "ok", f"{'; '.join(told)}.")


def check_backup(box: Box) -> Iterator[Finding]:
    """How long ago the last backup was, where that is known."""
    path = box.settings.home / LAST_BACKUP
    try:
        days = (utc_now().timestamp() - path.stat().st_mtime) / 86_400
    except FileNotFoundError:
        yield Finding(
            "backup", "warning" if box.database is not None else "ok",
            "No backup of this box is known.",
            f"Run `shotline backup FILE`; a script of your own says so with `touch {path}`.",
        )  # fmt: skip
        return
    if days > _BACKUP_DAYS:
        old = f"The last backup is {days:.0f} days old."
        yield Finding("backup", "warning", old, "Run `shotline backup FILE`.")
    else:
        yield Finding("backup", "ok", f"The last backup is {days:.1f} days old.")


def _celery(box: Box) -> Celery:
    app = Celery("shotline", broker=box.queue_url)
    app.conf.broker_transport_options = _TIMEOUTS
    return app


def _reason(error: Exception) -> str:
    return str(error).rstrip(".")


def _shown(url: str) -> str:
    """Return the address without its password."""
    found = urlsplit(url)
    if found.scheme != "redis":
        return url
    return f"redis://{found.hostname}:{found.port or 6379}{found.path}"


CHECKS: tuple[Check, ...] = (
    Check("settings", check_settings),
    Check("versions", check_versions),
    Check("account", check_account),
    Check("processor", check_processor),
    Check("memory", check_memory),
    Check("disk", check_disks),
    Check("files", check_files),
    Check("clock", check_clock, 20.0),
    Check("device", check_device, 90.0),
    Check("backbone", check_backbone, 180.0),
    Check("engines", check_engines, 60.0),
    Check("database", check_database, 120.0),
    Check("redis", check_redis, 15.0),
    Check("storage", check_storage),
    Check("gateway", check_gateway, 25.0),
    Check("worker", check_worker, 20.0),
    Check("keys", check_keys, 20.0),
    Check("jobs", check_jobs, 20.0),
    Check("backup", check_backup),
)
