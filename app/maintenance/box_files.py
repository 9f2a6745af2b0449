"""The files beside the code that a box needs: compose file, scripts, pages.

In an installed wheel they lie in a folder of this package, see pyproject.toml; in a checkout at its
root.
"""

from pathlib import Path

from models.errors import BadInput

PACKED = "app/maintenance/box"
ROOT = Path(__file__).parents[2]
FILES = (
    "docker-compose.yml", ".env.example", "constraints.txt", "deploy/make-secrets",
    "deploy/Caddyfile", "deploy/install.sh", "docs/deploy.md", "docs/airgap.md",
    "docs/operations.md", "docs/security.md",
)  # fmt: skip


def box_file(name: str) -> Path:
    """Return where a file of the box is: in this package, or in the checkout that it runs from.

    Raises:
        BadInput: in neither.
    """
    for folder in (ROOT / PACKED, ROOT):
        if (folder / name).is_file():
            return folder / name
    raise BadInput(
        f"The file {name} is neither in the package nor beside it.",
        fix="Install Shotline from its wheel, or run this in a checkout.",
    )
