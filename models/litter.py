"""What file managers leave beside photographs."""

_LITTER = {"thumbs.db", "desktop.ini", "__macosx"}


def is_litter(name: str) -> bool:
    """Say whether a file or folder of that name is hidden or a file manager's, not a person's."""
    return name.startswith(".") or name.lower() in _LITTER
