"""Text that people or machines send: kept in one form, and free of what databases refuse."""

import unicodedata

from models.errors import BadName

NAME_LENGTH = 100
TEXT_LENGTH = 200


def clean_text(value: str, field: str, *, max_length: int = TEXT_LENGTH) -> str:
    """Return `value` in Unicode NFC without space around it.

    Raises:
        BadName: empty, too long, or with control characters or lone surrogates.
    """
    clean = unicodedata.normalize("NFC", value).strip()
    if not clean:
        raise BadName(
            f"The {field} {value!r} is empty.", fix="Give it at least one letter.", field=field
        )
    if len(clean) > max_length:
        raise BadName(
            f"The {field} {clean[:20]!r}… has {len(clean)} characters;"
            f" at most {max_length} are allowed.",
            fix="Shorten it.",
            field=field,
        )
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in clean):
        raise BadName(
            f"The {field} {clean!r} has control characters.",
            fix="Use printable characters only.",
            field=field,
        )
    return clean


def printable(value: str, max_length: int = TEXT_LENGTH) -> str:
    """Return `value` fit to be stored and shown, whatever it was: for names that others chose."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in {"Cc", "Cs"}
        else character
        for character in unicodedata.normalize("NFC", value)
    )
    return shown if len(shown) <= max_length else shown[: max_length - 1] + "…"
