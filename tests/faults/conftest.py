"""The databases of the integration tests."""

from tests.integration.conftest import (
    backbone_settings,
    database,
    database_kind,
    database_url,
    limits,
    postgres_url,
    settings,
    sqlite_template,
)

__all__ = [
    "backbone_settings",
    "database",
    "database_kind",
    "database_url",
    "limits",
    "postgres_url",
    "settings",
    "sqlite_template",
]
