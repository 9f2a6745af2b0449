"""What the documents show has to run."""

import re
import shutil
from pathlib import Path

import PIL.Image
import pytest

ROOT = Path(__file__).parents[2]


def test_the_example_of_the_core_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, name in enumerate(("good", "scratch")):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for number in range(2):
            colour = (200 - 150 * index, 40 + number, 40 + 150 * index)
            PIL.Image.new("RGB", (64, 64), colour).save(folder / f"{number}.png")
    shutil.copy(tmp_path / "photographs/scratch/0.png", tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/core.md").read_text(), re.S)
    assert len(example.splitlines()) <= 25
    exec(compile(example, "docs/core.md", "exec"), {})
    assert "label='scratch'" in capsys.readouterr().out


def test_the_readme_is_under_150_lines() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


def test_every_adr_is_on_one_screen_and_says_context_decision_consequence() -> None:
    for path in (ROOT / "docs/adr").glob("[0-9]*.md"):
        text = path.read_text()
        assert len(text.splitlines()) <= 60, path.name
        for part in ("**Context.**", "**Decision.**", "**Consequence.**"):
            assert part in text, f"{path.name} has no {part}"
