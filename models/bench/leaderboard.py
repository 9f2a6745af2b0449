"""Tables of results, for the terminal and for the page: the best method first."""

from collections.abc import Sequence
from dataclasses import dataclass

from models.bench.cells import ACROSS
from models.bench.results import CellResult
from models.bench.summary import MethodSummary, Setting, Spread, over_datasets, summarise

NOTHING = "\N{EM DASH}"
_NO_BREAK = "\N{NO-BREAK SPACE}"
_PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


@dataclass(frozen=True)
class Leaderboard:
    """The methods of a protocol with so many shots and a tau.

    Attributes:
        title: names these.
        caption: says what the columns hold.
        columns: of numbers, beside the method.
        rows: the method and its numbers, the best first.
    """

    title: str
    caption: str
    columns: list[str]
    rows: list[tuple[str, list[str]]]


def leaderboards(results: Sequence[CellResult]) -> list[Leaderboard]:
    """Return a table for each protocol, number of shots and tau."""
    single, merged = summarise(results), over_datasets(results)
    groups: dict[tuple[str, int, float], list[Setting]] = {}
    for setting in single:
        groups.setdefault((setting.protocol, setting.shots, setting.tau), []).append(setting)
    boards = []
    for group, settings in groups.items():
        over = [one for key, ones in merged.items() if key[1:] == group for one in ones]
        by_set = {setting.dataset: single[setting] for setting in settings}
        boards.append(_board(group, by_set, over))
    return boards


def _board(
    group: tuple[str, int, float],
    by_set: dict[str, list[MethodSummary]],
    over: Sequence[MethodSummary],
) -> Leaderboard:
    protocol, shots, tau = group
    novel = protocol == "base-to-novel"
    several = len(by_set) > 1
    what = "targets" if protocol in ACROSS else "sets"
    overall = over if several else next(iter(by_set.values()))
    ranked = {one.method: one for one in overall}
    methods = list(dict.fromkeys([*ranked, *(o.method for ones in by_set.values() for o in ones)]))
    columns = [*by_set, *([f"mean of {what}"] if several else [])]
    columns += [] if novel else ["tail", "worst class", "ECE"]
    rows = []
    for method in methods:
        cells = [
            _accuracy(next((one for one in ones if one.method == method), None), novel=novel)
            for ones in by_set.values()
        ]
        one = ranked.get(method)
        cells += [_accuracy(one, novel=novel)] if several else []
        cells += [] if novel else _beside(one)
        rows.append((method, [*cells, _seconds(one)]))
    spread = f"mean accuracy of classes in %, {_PLUS_MINUS} standard deviation over seeds"
    return Leaderboard(
        title=f"{protocol}, {shots} shot{'' if shots == 1 else 's'}, tau {tau:g}",
        caption="top-1 accuracy in %: base / novel / H, means over seeds" if novel else spread,
        columns=[*columns, "tuning, s"],
        rows=rows,
    )


def _accuracy(one: MethodSummary | None, *, novel: bool) -> str:
    if one is None:
        return NOTHING
    if not novel:
        return _percent(one.macro)
    h = NOTHING if one.h is None else f"{100 * one.h:.1f}"
    return f"{_mean(one.base)} / {_mean(one.novel)} / {h}"


def _beside(one: MethodSummary | None) -> list[str]:
    if one is None:
        return [NOTHING] * 3
    ece = NOTHING if one.ece is None else f"{one.ece.mean:.3f}"
    return [_percent(one.tail_macro), _percent(one.worst_class), ece]


def _mean(spread: Spread | None) -> str:
    return NOTHING if spread is None else f"{100 * spread.mean:.1f}"


def _percent(spread: Spread | None) -> str:
    if spread is None or spread.std is None:
        return _mean(spread)
    deviation = f"{_PLUS_MINUS}{_NO_BREAK}{100 * spread.std:.1f}"
    return f"{_mean(spread)}{_NO_BREAK}{deviation}"


def _seconds(one: MethodSummary | None) -> str:
    if one is None or one.tune_seconds is None:
        return NOTHING
    return f"{one.tune_seconds.mean:.1f}"
