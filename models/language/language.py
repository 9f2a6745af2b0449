"""One language: its texts, and how it writes numbers, dates and lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.evaluation.results import Proportion
from models.language.phrase import Phrase

LanguageCode = Literal["en", "ja"]


@dataclass(frozen=True)
class Language:
    """A language that reports are written in.

    Attributes:
        code: as in BCP 47.
        texts: by key, with `{placeholders}`; every language has the same of both.
    """

    code: LanguageCode
    texts: Mapping[str, str]

    def say(self, key: str, **values: object) -> str:
        """Return a text with its placeholders filled."""
        return self.texts[key].format(**values)

    def word(self, said: Phrase) -> str:
        """Return a phrase in words."""
        return self.say(said.key, **{name: self._worded(it) for name, it in said.values.items()})

    def worded(self, said: Sequence[Phrase]) -> str:
        """Return phrases, each of which is a sentence, one after the other."""
        return self.texts["list.sentence"].join(self.word(one) for one in said)

    def _worded(self, value: object) -> object:
        if isinstance(value, Phrase):
            return self.word(value)
        if isinstance(value, list):
            parts = [
                self.word(one) if isinstance(one, Phrase) else self.say("list.name", name=one)
                for one in value
            ]
            return self.texts["list.between"].join(parts)
        return value

    def percent(self, share: float) -> str:
        """Return a share such as 0.935 as `93.5 %`; only a whole is shown as 100."""
        return self.say("number.percent", value=_tenths(share))

    def interval(self, value: Proportion) -> str:
        """Return a 95 % interval such as 88.1 to 96.9 %."""
        return self.say("number.interval", low=_tenths(value.low), high=_tenths(value.high))

    def thousand(self, value: Proportion) -> str:
        """Return a share as so many of 1,000, with its interval."""
        middle, low, high = (f"{1000 * part:.0f}" for part in (value.value, value.low, value.high))
        return self.say("number.thousand", value=middle, low=low, high=high)

    def seconds(self, value: float) -> str:
        """Return a duration as `0.4 s`, `21 s` or `3 min 05 s`."""
        if value < 0.05:
            return self.say("number.moment")
        if value < 9.95:
            return self.say("number.seconds", value=f"{value:.1f}")
        if round(value) < 60:
            return self.say("number.seconds", value=f"{value:.0f}")
        minutes, rest = divmod(round(value), 60)
        return self.say("number.minutes", minutes=minutes, seconds=f"{rest:02d}")

    def counted(self, count: int, noun: str) -> str:
        """Return `1 photograph`, `20 photographs`, `1 class`, `3 classes`."""
        form = "one" if count == 1 else "other"
        return self.say(f"count.{noun}.{form}", n=f"{count:,}")

    def time(self, moment: datetime) -> str:
        """Return a moment in UTC to the minute."""
        return self.say(
            "number.time",
            date=self.say(
                "number.date", year=moment.year, month=f"{moment:%m}", day=f"{moment:%d}"
            ),
            time=f"{moment:%H:%M}",
        )

    def listed(self, parts: Sequence[str]) -> str:
        """Return `a, b and c`."""
        *most, last = parts
        if not most:
            return last
        return self.say("list.last", most=self.texts["list.between"].join(most), last=last)


def _tenths(share: float) -> str:
    """Return a share in percent, to a tenth, but never up to a whole or down to nothing."""
    value = round(share * 100, 1)
    if value == 100 and share < 1:
        value = 99.9
    if value == 0 and share > 0:
        value = 0.1
    return f"{value:.1f}" if value not in (0, 100) else f"{value:.0f}"
