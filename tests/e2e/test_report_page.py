"""The report in a real browser: it renders, fits the screen, and asks nobody for anything."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import pytest

from models.language import CODES, LANGUAGES
from models.report import LanguageCode, ReportData, render_report
from models.trust.policy import DecisionPolicy
from tests.report_samples import heated, mistake, sample_extras, sample_report, with_extras

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-default-apps", "--disable-extensions", "--hide-scrollbars"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0", "--dump-dom"),
]
NAMES = ("good", "<script>document.title='run'</script>", "表面のきず 🔥", "oxide_scale_of_" * 4)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")


@dataclass(frozen=True)
class Visit:
    """What came of opening a page: its DOM, its console, the addresses that it asked for."""

    dom: str
    console: list[str]
    requests: list[str]


Browse = Callable[..., Visit]


@pytest.fixture
def browse(tmp_path: Path) -> Browse:
    def visit(html: str) -> Visit:
        page, log = tmp_path / "report.html", tmp_path / "net.json"
        page.write_text(html, encoding="utf-8")
        options = [
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,900",
            f"--log-net-log={log}",
        ]
        assert CHROMIUM is not None
        done = subprocess.run(
            [CHROMIUM, *FLAGS, *options, page.as_uri()],
            capture_output=True,
            timeout=120,
            check=True,
        )
        errors = done.stderr.decode("utf-8", "replace").splitlines()
        return Visit(
            dom=done.stdout.decode("utf-8"),
            console=[line for line in errors if ":CONSOLE" in line],
            requests=requested(log),
        )

    return visit


def requested(log: Path) -> list[str]:
    """Return the addresses that the page asked for; the browser's own requests have no origin."""
    events = [event.get("params", {}) for event in json.loads(log.read_text("utf-8"))["events"]]
    return [
        params["url"]
        for params in events
        if "url" in params and params.get("initiator", "not an origin") != "not an origin"
    ]


def test_a_bad_page_would_be_noticed(browse: Browse) -> None:
    bad = "<!doctype html><script>console.error('seen')</script><img src='http://example.test/a'>"
    visit = browse(bad)
    assert any("seen" in line for line in visit.console)
    assert visit.requests == ["http://example.test/a"]


@pytest.mark.parametrize("n_classes", [2, 4])
def test_renders_without_network_script_or_complaint(browse: Browse, n_classes: int) -> None:
    names = NAMES[:n_classes]
    data = sample_report(names, mistakes=[mistake(names[1], names[0], name=names[1])])
    visit = browse(render_report(data))
    assert visit.console == []
    assert visit.requests == []
    assert visit.dom.rstrip().endswith("</html>")
    assert "<title>run</title>" not in visit.dom
    assert "<script" not in visit.dom
    for heading in ("Class by class", "What is taken for what", "How to do it again"):
        assert heading in visit.dom
    for name in names:
        assert escape(name, quote=False) in visit.dom.replace("<wbr>", "")


def with_everything() -> ReportData:
    """Return a report of three classes with every section, as long as they get."""
    names = NAMES[1:]
    mistakes = [heated(mistake(names[0], names[2], name=f"{names[0]}/{n}.png")) for n in range(8)]
    data = sample_report(names, basis="out-of-fold", mistakes=mistakes)
    costs = {"costs": {names[1]: {"miss": 1e6}}, "review": 0.5}
    return replace(with_extras(data, **sample_extras()), policy=DecisionPolicy.read(costs))


def test_everything_renders_in_japanese_without_network_script_or_complaint(
    browse: Browse,
) -> None:
    visit = browse(render_report(with_everything(), "ja"))
    assert visit.console == []
    assert visit.requests == []
    assert '<html lang="ja">' in visit.dom
    for section in ("costs", "trust", "mistakes", "findings", "curve", "search", "again"):
        assert LANGUAGES["ja"].say(f"{section}.title") in visit.dom


RULER = """<script>
const page = document.documentElement, bad = [];
if (page.scrollWidth > page.clientWidth) bad.push("the page is " + page.scrollWidth + " wide");
for (const element of document.body.querySelectorAll("*:not(.scroll *)"))
  if (element.getBoundingClientRect().right > page.clientWidth + 1)
    bad.push(element.tagName + " " + element.className + " sticks out");
for (const box of document.querySelectorAll(".scroll"))
  if (page.clientWidth > 1000 && box.scrollWidth > box.clientWidth)
    bad.push(box.textContent.trim().slice(0, 30) + " scrolls");
for (const svg of document.querySelectorAll("svg.map, svg.chart"))
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBBox(), view = svg.viewBox.baseVal;
    const room = svg.classList.contains("map") ? 31 : view.width;
    if (box.width > room || box.x < 0 || box.x + box.width > view.width)
      bad.push(text.textContent + " is cut");
  }
parent.document.documentElement.dataset.found = page.clientWidth + ": " + bad.join("; ");
</script></body>"""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("n_classes", [2, 3, 7, 12])
def test_fits_the_screen(browse: Browse, n_classes: int, width: int) -> None:
    names = [*NAMES[1:], *(f"class {index}" for index in range(n_classes))][:n_classes]
    html = render_report(sample_report(names, mistakes=[mistake(names[0], names[1])]))
    assert sticks_out(browse, html, width) == ""


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("language", CODES)
def test_everything_fits_the_screen(browse: Browse, language: LanguageCode, width: int) -> None:
    assert sticks_out(browse, render_report(with_everything(), language), width) == ""


def sticks_out(browse: Browse, html: str, width: int) -> str:
    """Say what of the page does not fit into a frame of that width."""
    # The page runs no script; the ruler does, so it is let in. A frame can be narrower than any
    # window of the browser.
    ruled = re.sub(r"<meta http-equiv=[^>]*>", "", html).replace("</body>", RULER)
    frame = (
        f'<!doctype html><iframe width="{width}" height="900" srcdoc="{escape(ruled)}"></iframe>'
    )
    found = re.search(r'data-found="([^"]*)"', browse(frame).dom)
    assert found is not None
    shown, _, said = found[1].partition(": ")
    assert shown == str(width)
    return said
