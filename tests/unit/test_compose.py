"""The compose file, its `.env` and the image keep what the documents promise."""

import importlib.util
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core.settings import LimitSettings, Settings, TuningSettings

ROOT = Path(__file__).parents[2]
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ENV_EXAMPLE = (ROOT / ".env.example").read_text()
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
OURS = ("gateway-cpu", "gateway-gpu", "worker-cpu", "worker-gpu")


def filled_in(value: str) -> str:
    """Put in the defaults, as compose does where a variable is not set."""
    return VARIABLE.sub(r"\2", value)


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_a_profile_starts_one_gateway_and_one_worker(profile: str) -> None:
    started = {name for name, it in SERVICES.items() if profile in it.get("profiles", [profile])}
    assert started == {f"gateway-{profile}", f"worker-{profile}", "migrate", "redis", "postgres"}


def test_the_gpu_is_asked_for_in_one_variant_alone() -> None:
    for name in OURS:
        wants_gpu = name.endswith("gpu")
        assert ("deploy" in SERVICES[name]) == wants_gpu
        device = SERVICES[name]["environment"]["SHOTLINE_BACKBONE_DEVICE"]
        assert device == ("cuda" if wants_gpu else "cpu")


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_a_privilege_that_it_does_not_need(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["pids_limit"] == 1024
    if name == "tls":
        assert service["cap_add"] == ["NET_BIND_SERVICE"]
    elif name not in ("redis", "postgres"):
        assert "cap_add" not in service


@pytest.mark.parametrize("name", [*OURS, "redis", "postgres", "tls"])
def test_what_runs_for_ever_restarts_and_is_watched(name: str) -> None:
    assert SERVICES[name]["restart"] == "unless-stopped"
    assert SERVICES[name]["healthcheck"]["test"]
    assert SERVICES[name]["logging"]["options"]["max-size"]


@pytest.mark.parametrize("name", OURS)
def test_ours_wait_for_the_migration(name: str) -> None:
    waits = SERVICES[name]["depends_on"]
    assert waits["migrate"]["condition"] == "service_completed_successfully"
    # Predictions go on without Redis, so the gateway does not wait for it.
    assert ("redis" in waits) == name.startswith("worker")


def test_the_checks_ask_what_they_claim() -> None:
    gateway = SERVICES["gateway-cpu"]["healthcheck"]["test"]
    assert "/readyz" in gateway[-1]
    worker = SERVICES["worker-cpu"]["healthcheck"]["test"]
    assert worker[:3] == ["CMD", "python", "-m"]
    assert importlib.util.find_spec(worker[3]) is not None


def test_a_worker_has_the_time_to_drain() -> None:
    grace = filled_in(SERVICES["worker-cpu"]["stop_grace_period"])
    assert float(grace.removesuffix("s")) >= TuningSettings().drain_seconds + 30


def test_only_the_gateway_is_reachable_and_only_from_this_machine() -> None:
    published = {name: it["ports"] for name, it in SERVICES.items() if "ports" in it}
    assert set(published) == {"gateway-cpu", "gateway-gpu", "tls"}
    for name, (port,) in published.items():
        number = 8443 if name == "tls" else 8000
        assert filled_in(port) == f"127.0.0.1:{number}:{number}"
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in set(SERVICES) - set(published):
        assert SERVICES[name]["networks"] == ["inside"]


def test_gateway_and_worker_share_one_data_volume() -> None:
    for name in OURS:
        mounts = dict(volume.split(":")[:2] for volume in SERVICES[name]["volumes"])
        assert mounts["data"] == SERVICES[name]["environment"]["SHOTLINE_HOME"]
    assert set(COMPOSE["volumes"]) == {"data", "redis", "postgres", "tls"}


def test_redis_has_room_for_what_it_may_hold_twice() -> None:
    command = SERVICES["redis"]["command"]
    most = command[command.index("--maxmemory") + 1]
    assert int(SERVICES["redis"]["mem_limit"].removesuffix("m")) == 2 * int(most.removesuffix("mb"))


def test_the_proxy_speaks_tls_of_its_own_and_holds_nothing_back() -> None:
    service = SERVICES["tls"]
    assert service["profiles"] == ["tls"]
    assert "./deploy/Caddyfile:/etc/caddy/Caddyfile:ro" in service["volumes"]
    lines = [line.strip() for line in (ROOT / "deploy/Caddyfile").read_text().splitlines()]
    said = [line for line in lines if line and not line.startswith("#")]
    assert "https://{$SHOTLINE_TLS_NAME}:8443 {" in said
    assert "tls internal" in said  # nothing is asked of the internet
    assert "reverse_proxy gateway:8000 {" in said
    assert "flush_interval -1" in said
    assert not any("Strict-Transport-Security" in line for line in said)
    limits = LimitSettings()
    assert f"max_size {limits.upload_bytes // 2**30}GiB" in said
    assert f"max_header_size {limits.header_bytes // 1024}KiB" in said
    assert f"read_header {limits.header_seconds:.0f}s" in said
    assert said.count("{") + sum(line.endswith(" {") for line in said) == said.count("}")
    assert service["healthcheck"]["test"][-1] == "http://127.0.0.1:2080/alive"
    assert "http://127.0.0.1:2080 {" in said


def test_redis_keeps_what_it_was_told_and_drops_nothing() -> None:
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"


def test_every_variable_is_documented_with_its_default() -> None:
    documented = dict(re.findall(r"^([A-Z_]+)=(.*)$", ENV_EXAMPLE, re.M))
    for name, default in VARIABLE.findall(COMPOSE_TEXT):
        assert documented[name] == default, name


def test_no_variable_of_composes_can_be_one_of_another_program() -> None:
    assert all(name.startswith("SHOTLINE_") for name, _ in VARIABLE.findall(COMPOSE_TEXT))


def test_the_image_carries_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {filled_in(SERVICES[name]["image"]) for name in OURS} == {f"shotline:{version}"}
    assert f"docker build --tag shotline:{version} ." in (ROOT / "docs/deploy.md").read_text()


def test_every_setting_in_env_example_exists() -> None:
    known = {
        f"{field.annotation.model_config.get('env_prefix', '')}{name.upper()}"  # type: ignore[union-attr]
        for field in Settings.model_fields.values()
        for name in field.annotation.model_fields  # type: ignore[union-attr]
    }
    composes = {name for name, _ in VARIABLE.findall(COMPOSE_TEXT)}
    named = set(re.findall(r"^#?(SHOTLINE_[A-Z_]+)=", ENV_EXAMPLE, re.M)) - composes
    assert named
    assert named <= known


def test_make_secrets_writes_what_compose_mounts(tmp_path: Path) -> None:
    script, folder = ROOT / "deploy/make-secrets", tmp_path / "secrets"
    subprocess.run([script, folder], check=True, capture_output=True)
    mounted = {Path(filled_in(it["file"])).name for it in COMPOSE["secrets"].values()}
    assert {path.name for path in folder.iterdir()} == mounted
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # Users inside containers are not those of this machine: each file is readable for all.
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in folder.iterdir())

    words = {path.name: path.read_text().strip() for path in folder.iterdir()}
    password = words["redis_conf"].removeprefix("requirepass ")
    assert len(password) == len(words["postgres_password"]) == 64
    assert password != words["postgres_password"]
    assert f":{password}@redis:6379" in words["queue_url"]
    assert f":{words['postgres_password']}@postgres:5432" in words["database_url"]

    again = subprocess.run([script, folder], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "nothing was changed" in again.stderr
    assert {path.name: path.read_text().strip() for path in folder.iterdir()} == words


def test_the_image_is_not_run_by_root_and_needs_no_buildkit() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER shotline"]
    assert "FROM python:3.11-slim" in lines
    assert not any(
        "--mount" in line or "<<" in line or line.startswith("# syntax") for line in lines
    )


def test_what_the_image_copies_is_not_ignored() -> None:
    kept = set(re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M))
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    assert set(" ".join(copied).split()) == kept
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not here")
@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_docker_compose_reads_it(profile: str, tmp_path: Path) -> None:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE_TEXT)
    env = ENV_EXAMPLE.replace("COMPOSE_PROFILES=cpu", f"COMPOSE_PROFILES={profile}")
    (tmp_path / ".env").write_text(env)
    command = ["docker-compose", "config", "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
