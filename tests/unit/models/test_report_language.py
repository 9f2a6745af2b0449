"""The languages of a report: each says everything, and no text stands anywhere else."""

import re
import string
from datetime import UTC, datetime
from pathlib import Path

import pytest

import models.findings
import models.report
import models.trust
from models import language as languages
from models.collapse.measures import IMAGE_SIDE, TEXT_SIDE
from models.evaluation.results import Proportion
from models.findings.finding import KINDS
from models.heatmaps.choose import WAYS
from models.language import CODES, ENGLISH, JAPANESE, LANGUAGES, accepted
from models.report import render_report
from models.trust.reasons import REASONS
from tests.report_samples import (
    heated,
    mistake,
    sample_extras,
    sample_report,
    with_extras,
)

FOLDERS = [
    Path(package.__file__).parent for package in (models.report, models.findings, models.trust)
]
NAMES = ("good", "表面のきず 🔥", "stain")
# Of keys that are put together where they are used.
ENDINGS = {
    **{f"finding.{kind}": ("",) for kind in KINDS},
    **{f"advice.{kind}": ("",) for kind in KINDS},
    **{f"reason.{reason}": ("",) for reason in REASONS},
    **{f"mistakes.way.{way}": ("",) for way in WAYS},
    **{f"measure.{it.key}": (".name", ".meaning") for it in (*TEXT_SIDE, *IMAGE_SIDE)},
}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_says_the_same_things_of_the_same_values() -> None:
    assert set(LANGUAGES) == set(CODES)
    for other in LANGUAGES.values():
        assert set(other.texts) == set(ENGLISH.texts)
        for key, text in other.texts.items():
            assert placeholders(text) == placeholders(ENGLISH.texts[key]), key
            assert text or key == "list.sentence", key


def test_what_is_asked_for_is_there_and_what_is_there_is_asked_for() -> None:
    sources = "\n".join(
        path.read_text("utf-8")
        for folder in FOLDERS
        for path in folder.rglob("*")
        if path.suffix in {".py", ".html"}
    ) + Path(languages.language.__file__).read_text("utf-8")
    asked = set(re.findall(r'(?:\bt|say|phrase|_share|_key)\(\s*"([\w.-]+)"(?! ~)', sources))
    assert len(asked) > 100
    assert asked <= set(ENGLISH.texts), asked - set(ENGLISH.texts)
    dynamic = {f"{stem}{ending}" for stem, endings in ENDINGS.items() for ending in endings}
    assert dynamic <= set(ENGLISH.texts)
    parts = {part for key in re.findall(r'"([\w.-]+)"', sources) for part in (key, key.rstrip("."))}
    for key in set(ENGLISH.texts) - asked - dynamic:
        stems = {key, *(key[: match.start()] for match in re.finditer(r"\.", key))}
        assert stems & parts or any(f'f"{stem}.{{' in sources for stem in stems), key


def test_japanese_is_japanese() -> None:
    kana = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
    alike = {key for key, text in JAPANESE.texts.items() if text == ENGLISH.texts[key]}
    for key in set(JAPANESE.texts) - alike:
        assert kana.search(JAPANESE.texts[key]) or len(JAPANESE.texts[key]) < 40, key
        assert english(re.sub(r"\{[^}]*\}", " . ", JAPANESE.texts[key])) == [], key
    assert alike < {key for key in ENGLISH.texts if len(ENGLISH.texts[key]) < 30}


@pytest.mark.parametrize("code", CODES)
def test_a_page_with_everything_in_it(code: languages.LanguageCode) -> None:
    data = with_extras(
        sample_report(NAMES, basis="out-of-fold", mistakes=[heated(mistake("good", "stain"))]),
        **sample_extras(),
    )
    html = render_report(data, code)
    assert f'<html lang="{code}">' in html
    for key in ("costs", "trust", "confusions", "mistakes", "findings", "curve", "search", "again"):
        assert LANGUAGES[code].say(f"{key}.title") in html
    assert "{" not in re.sub(r"<style>.*?</style>", "", html, flags=re.S)


def test_the_japanese_page_holds_no_english_sentence() -> None:
    data = with_extras(
        sample_report(NAMES, basis="out-of-fold", mistakes=[heated(mistake("good", "stain"))]),
        **sample_extras(),
    )
    html = render_report(data, "ja")
    assert english(html) == []
    assert len(english(render_report(data, "en"))) > 100


def english(html: str) -> list[str]:
    """Return runs of three words and more that a reader sees or hears, but no code and no names."""
    heard = " . ".join(re.findall(r'(?:aria-label|alt|title)="([^"]*)"', html))
    hidden = r"<style>.*?</style>|<(code|bdi)>.*?</\1>|<[^>]*>"
    seen = re.sub(hidden, " . ", html, flags=re.S)
    # Names that stand in sentences have brackets of their own.
    unnamed = re.sub(r"「[^」]*」", " . ", f"{seen} {heard}").replace("PyTorch", ".")
    return re.findall(r"[A-Za-z']{2,}(?:[ ,;:]+[A-Za-z']+){2,}", unnamed)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("ja", "ja"),
        ("ja-JP,ja;q=0.9,en-US;q=0.8,en;q=0.7", "ja"),
        ("en-GB,ja;q=0.5", "en"),
        ("de,ja;q=0.4", "ja"),
        ("ja;q=0.2, en;q=0.9", "en"),
        ("ja;q=0", "en"),
        ("ja;q=much", "en"),
        ("de-DE,fr", "en"),
        ("*", "en"),
        ("", "en"),
        ("JA", "ja"),
    ],
)
def test_what_a_browser_asks_for(header: str, expected: str) -> None:
    assert accepted(header) == expected


def test_numbers_as_each_language_writes_them() -> None:
    share = Proportion(value=0.935, low=0.881, high=0.969)
    assert JAPANESE.percent(0.935) == "93.5%"
    assert JAPANESE.interval(share) == "88.1〜96.9%"
    assert JAPANESE.thousand(share) == "935（881〜969）"  # noqa: RUF001 - as Japanese has them
    assert ENGLISH.thousand(share) == "935 (881\N{EN DASH}969)"
    assert (JAPANESE.seconds(185), JAPANESE.seconds(0.4)) == ("3分05秒", "0.4秒")
    assert JAPANESE.counted(1200, "photograph") == "1,200枚"
    moment = datetime(2026, 3, 5, 9, 30, tzinfo=UTC)
    assert ENGLISH.time(moment) == "2026-03-05 09:30 UTC"
    assert JAPANESE.time(moment) == "2026年03月05日 09:30（UTC）"  # noqa: RUF001 - likewise
    assert ENGLISH.listed(["a"]) == JAPANESE.listed(["a"]) == "a"
    assert ENGLISH.listed(["a", "b", "c"]) == "a, b and c"
    assert JAPANESE.listed(["a", "b", "c"]) == "a、b、c"
