"""Before any test imports `models`: shapes and types of its arguments are checked from here on."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from jaxtyping import install_import_hook

# PEP 484: where a float is asked for, an int will do.
_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"

install_import_hook("models", _CHECKER)

# As the `shotline` command sets it, and before PyTorch is loaded: threads of two processes on two
# cores that wait for each other awake take ten times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Processes that tests start find no package there that an installation has not.
_ABSENT = str(Path(__file__).with_name("absent"))
os.environ["PYTHONPATH"] = os.pathsep.join(
    path for path in (_ABSENT, os.environ.get("PYTHONPATH")) if path
)

# Services that tests start need not measure engines first; `test_engines.py` does.
os.environ.setdefault("SHOTLINE_BACKBONE_ENGINE", "torch")


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Commands that a test runs in this process set up logging, some of them for errors alone."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.configure(**config)
