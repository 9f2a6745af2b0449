"""What `docs/plc.md` promises a PLC is what the gateway does."""

import re
from pathlib import Path

from app.core.settings import Settings
from app.main import create_app
from app.predictions.schemas import COMPACT_BYTES, compact
from models.trust.reasons import REASONS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "plc.md").read_text(encoding="utf-8")
DECISIONS = (DOCS / "decisions.md").read_text(encoding="utf-8")


def test_the_compact_line() -> None:
    assert f"\n{compact('ng', 0.94, 7, 'certain', 'scratch')}\n" in PAGE
    assert f"at most {COMPACT_BYTES} bytes" in PAGE
    codes = re.search(r"^\| code \| (.+?):", PAGE, re.M)
    assert codes
    assert codes[1] == "1 ok, 2 not ok, 3 undecidable"
    assert [compact(it, 0, 1, None, "")[0] for it in ("ok", "ng", "undecidable")] == ["1", "2", "3"]


def test_the_listing_cuts_the_line_where_it_is_cut() -> None:
    """`ReadDecision` takes the first `;` at the second place, the next one six digits later."""
    for probability in (0.0, 0.5, 1.0):
        line = compact("ok", probability, 12, "certain", "a;b")
        assert line.index(";") == 1
        rest = line[2:]
        assert rest.index(";") == 6
        assert rest[7:].split(";", 2) == ["12", "certain", "a;b"]


def test_every_reason_is_explained() -> None:
    explained = re.findall(r"^\| `([a-z_]+)` \|", DECISIONS.split("closed list")[1], re.M)
    assert explained == list(REASONS)
    assert max(map(len, REASONS)) <= 24  # the listing's STRING


def test_the_listing_has_one_deadline_and_forgets_the_last_part() -> None:
    (listing,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.S | re.M)
    assert not re.search(r"deadline_ms=\d", listing)
    assert listing.count("PT := Deadline + Network") == 1
    reading, asking = listing.split("FUNCTION_BLOCK AskShotline")
    assert "ReadDecision.Code := UNDECIDABLE" in reading
    # Every result is a whole one: no field is set alone, so none is left from the part before.
    assert re.findall(r"Result(?:\.\w+)? := (\w+)", asking) == ["ReadDecision"] * 3


def test_headers_and_query_exist() -> None:
    app = create_app(Settings())
    operation = app.openapi()["paths"]["/v1/projects/{project}/predict"]["post"]
    known = {entry["name"].lower() for entry in operation["parameters"]}
    headers = set(re.findall(r"^\| `([A-Z][A-Za-z-]+)` \|", PAGE, re.M))
    assert len(headers) == 4
    assert {name.lower() for name in headers} <= known
    assert {"idempotency-key", "deadline_ms", "format"} <= known


def test_every_status_of_the_table_can_be_answered() -> None:
    operation = create_app(Settings()).openapi()["paths"]["/v1/projects/{project}/predict"]["post"]
    rows = re.findall(r"^\| (\d[\d, ]+) \|", PAGE, re.M)
    named = {status for row in rows for status in row.split(", ")}
    assert named >= {"200", "409", "422", "503", "504"}
    assert named - {"500", "507"} <= set(operation["responses"])
