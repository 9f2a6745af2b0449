"""The languages that reports and findings are written in. Every text and number goes through one."""

from typing import Final, get_args

from models.language import en, ja
from models.language.language import Language, LanguageCode
from models.language.phrase import Phrase, phrase

ENGLISH: Final = Language("en", en.TEXTS)
JAPANESE: Final = Language("ja", ja.TEXTS)
LANGUAGES: Final[dict[LanguageCode, Language]] = {"en": ENGLISH, "ja": JAPANESE}
CODES: Final[tuple[LanguageCode, ...]] = get_args(LanguageCode)

__all__ = [
    "CODES",
    "ENGLISH",
    "JAPANESE",
    "LANGUAGES",
    "Language",
    "LanguageCode",
    "Phrase",
    "accepted",
    "phrase",
]


def accepted(header: str) -> LanguageCode:
    """Return the language of an `Accept-Language` that it likes best; English where it names none.

    RFC 9110, section 12.5.4: `ja;q=0.9, en;q=0.8`. What is no language of ours is passed over.
    """
    best: tuple[float, LanguageCode] = (0.0, "en")
    for part in header.split(","):
        tag, *options = (piece.strip().lower() for piece in part.split(";"))
        quality = _quality(options)
        for code in CODES:
            if tag.split("-")[0] == code and quality > best[0]:
                best = quality, code
    return best[1]


def _quality(options: list[str]) -> float:
    for option in options:
        name, _, value = option.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, float(value))
            except ValueError:
                return 0.0
    return 1.0
