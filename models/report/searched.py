"""How a search found the recipe."""

from models.language import ENGLISH, Language
from models.report.charts import LineChart, Series, line_chart
from models.report.words import number
from models.search.result import SearchResult, TrialRecord


def sentence(search: SearchResult, language: Language = ENGLISH) -> str:
    """Say what was taken, and against how much noise; nothing where the search goes on."""
    choice = search.choice
    if choice is None:
        return ""
    gain, needed = number(100 * choice.gain, 1), number(100 * choice.needed, 1)
    if choice.number == 0:
        return language.say("search.kept", gain=gain, needed=needed)
    return language.say("search.taken", number=choice.number, gain=gain, needed=needed)


def chart(search: SearchResult, language: Language = ENGLISH) -> LineChart | None:
    """Return each recipe's accuracy and the best so far, in percent, over their numbers."""
    done: list[TrialRecord] = [one for one in search.trials if one.macro is not None]
    if len(done) < 2:
        return None
    at = [float(one.number) for one in done]
    each = [100 * (one.macro or 0) for one in done]
    best = [100 * (one.best_so_far or 0) for one in done]
    series = [
        Series(language.say("search.each"), "each", each, at=at),
        Series(language.say("search.best"), "total", best, at=at),
    ]
    return line_chart(at, series, axis="search.axis", language=language)


def importance(search: SearchResult, language: Language = ENGLISH) -> list[tuple[str, str, float]]:
    """Return each hyperparameter, its share in words, and in percent of the largest."""
    largest = max((one.share for one in search.importance), default=0.0) or 1.0
    return [
        (one.name, language.percent(one.share), round(100 * one.share / largest, 1))
        for one in search.importance
    ]
