"""`docs/configuration.md` lists every setting.

Write it anew with `python -m tests.unit.app.test_configuration_page > docs/configuration.md`.
"""

import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from app.core.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"

HEAD = """\
# Configuration

Gateway, worker and command line read environment variables. The name of a variable with `_FILE`
behind it names a file that holds the value instead, for passwords:
`SHOTLINE_DATABASE_URL_FILE=/run/secrets/database_url`.
"""


def render() -> str:
    lines = [HEAD.rstrip()]
    for field in Settings.model_fields.values():
        concern = field.annotation
        assert isinstance(concern, type)
        assert issubclass(concern, BaseSettings)
        lines += ["", f"## {(concern.__doc__ or '').splitlines()[0].rstrip('.')}", ""]
        lines += ["| variable | default | meaning |", "|---|---|---|"]
        prefix = concern.model_config.get("env_prefix", "")
        for name, entry in concern.model_fields.items():
            meaning = entry.description or ""
            lines.append(f"| `{prefix}{name.upper()}` | {_default(entry)} | {meaning} |")
    return "\n".join(lines) + "\n"


def _default(entry: FieldInfo) -> str:
    value: Any = entry.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    shown = "none" if value is None else f"`{value}`"
    choices = get_args(entry.annotation)
    if choices and all(isinstance(choice, str) for choice in choices):
        shown += " of " + ", ".join(f"`{choice}`" for choice in choices)
    return shown


def test_the_page_lists_every_setting() -> None:
    assert PAGE.read_text(encoding="utf-8") == render()


def test_every_setting_says_what_it_means() -> None:
    assert "|  |" not in render()


if __name__ == "__main__":
    sys.stdout.write(render())
