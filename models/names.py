"""Names and other short texts from people or machines: kept in one form, and fit to be stored."""

import unicodedata

from models.errors import BadName

NAME_LENGTH = 100
TEXT_LENGTH = 200

# Control characters and lone surrogates, which databases and terminals refuse.
_REFUSED = frozenset({"Cc", "Cs"})
# Format characters, such as the zero-width space: legal inside a text, invisible alone.
FORMAT = "Cf"


def clean_text(
    value: str, field: str, *, what: str | None = None, max_length: int = TEXT_LENGTH
) -> str:
    """Return `value` in Unicode NFC without space around it.

    Args:
        value: what was sent.
        field: which field it was sent in.
        what: what a message calls it; the field's name by default.
        max_length: in characters.

    Raises:
        BadName: empty or invisible, too long, or with control characters or lone surrogates.
    """
    clean = unicodedata.normalize("NFC", value).strip()
    what = what or field
    if all(unicodedata.category(character) == FORMAT or character.isspace() for character in clean):
        raise BadName(
            f"The {what} {value!r} is empty.", fix="Give it at least one letter.", field=field
        )
    if len(clean) > max_length:
        raise BadName(
            f"The {what} {clean[:20]!r}… has {len(clean)} characters;"
            f" at most {max_length} are allowed.",
            fix="Shorten it.",
            field=field,
        )
    if any(unicodedata.category(character) in _REFUSED for character in clean):
        raise BadName(
            f"The {what} {clean!r} has control characters.",
            fix="Use printable characters only.",
            field=field,
        )
    return clean


def printable(value: str, max_length: int = TEXT_LENGTH) -> str:
    """Return `value` fit to be stored and shown, whatever it was: for names that others chose."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _REFUSED else character
        for character in unicodedata.normalize("NFC", value)
    )
    return shown if len(shown) <= max_length else shown[: max_length - 1] + "…"
