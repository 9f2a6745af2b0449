"""The core is told what it needs: it reads no environment variable."""

import ast
from pathlib import Path

import models

ROOT = Path(models.__file__).parent
# `import os` is for files; from these it could read a variable.
FORBIDDEN = {"environ", "environb", "getenv", "getenvb", "expandvars"}


def names_used(code: str) -> set[str]:
    """Return every name, attribute and import of a program."""
    nodes = list(ast.walk(ast.parse(code)))
    imported = [
        alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    ]
    return {
        *(node.id for node in nodes if isinstance(node, ast.Name)),
        *(node.attr for node in nodes if isinstance(node, ast.Attribute)),
        *imported,
    }


def test_the_scan_sees_every_way_in() -> None:
    for code in ("import os; os.environ['A']", "from os import getenv as g", "environ['A']"):
        assert names_used(code) & FORBIDDEN


def test_no_module_of_the_core_reads_a_variable() -> None:
    files = sorted(ROOT.rglob("*.py"))

    assert len(files) > 30
    found = {path.name: names_used(path.read_text("utf-8")) & FORBIDDEN for path in files}
    assert not {name: names for name, names in found.items() if names}
