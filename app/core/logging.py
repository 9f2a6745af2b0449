"""Logs: structlog, one JSON object a line in production, with whatever ids are bound."""

import logging
import sys
import warnings
from contextlib import suppress
from functools import partial
from typing import TextIO

import structlog
from structlog.typing import Processor

from app.core.settings import LogSettings


def configure_logging(settings: LogSettings) -> None:
    """Send structlog and the standard library's loggers to standard error in one form."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    json = settings.format == "json"
    renderer: list[Processor] = (
        [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
        if json
        else [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    # Written at once: the standard library makes a record of each line, and looks for its caller.
    structlog.configure(
        processors=[*shared, *renderer],
        logger_factory=partial(_Logger, sys.stderr),
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    # Pillow warns of each odd tag in a file, in words that hold the tag: a file could fill the log.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # The gateway logs its requests itself, with their ids.
    logging.getLogger("uvicorn.access").disabled = True


class _Logger:
    """Writes lines, and knows what it is called."""

    def __init__(self, file: TextIO, name: str = "") -> None:
        self._file, self.name = file, name

    def msg(self, line: str) -> None:
        # A full disk or a closed pipe must not fail what the line tells of.
        with suppress(OSError, ValueError):
            self._file.write(line + "\n")
            self._file.flush()

    debug = info = warning = error = critical = msg
