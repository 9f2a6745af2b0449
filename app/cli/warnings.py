"""What speaks against letting a version decide, where commands show one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.cli.console import out, plain

if TYPE_CHECKING:
    from models.artifact import ArtifactHeader


def warnings_of(header: "ArtifactHeader") -> list[str]:
    """Return it in sentences; the gateway says the same of its versions."""
    from models.language import ENGLISH
    from models.trust.doubts import measured, warnings

    metrics = header.metrics
    found = measured(header.classes, metrics.tuned, metrics.trust, metrics.learning_curve)
    return warnings(header.classes, found, ENGLISH)


def print_warnings(warnings: Sequence[str]) -> None:
    """Print one after the other."""
    for warning in warnings:
        out.print(plain(f"Warning {warning}"), soft_wrap=True)
