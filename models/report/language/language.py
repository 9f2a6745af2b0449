"""One language: its texts, and how it writes numbers, dates and lists."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from models.evaluation.results import Proportion
from models.report.words import tenths

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

    def percent(self, share: float) -> str:
        """Return a share such as 0.935 as `93.5 %`; only a whole is shown as 100."""
        return self.say("number.percent", value=tenths(share))

    def interval(self, value: Proportion) -> str:
        """Return a 95 % interval such as 88.1 to 96.9 %."""
        return self.say("number.interval", low=tenths(value.low), high=tenths(value.high))

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
