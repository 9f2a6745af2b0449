"""The parts of the demo that need no service."""

import subprocess
from pathlib import Path

import pytest

from examples import demo, demo_images
from examples.demo import without_settings
from examples.demo_images import HELD_OUT, SHOTS, DemoClass, Sample, draw
from models.errors import BadInput


def classes(*sizes: int) -> list[DemoClass]:
    return [
        DemoClass(f"class {label}", "part", [Path(f"{label}/{n}.jpg") for n in range(size)])
        for label, size in enumerate(sizes)
    ]


@pytest.mark.parametrize(
    ("n_classes", "held_out"), [(2, [100, 100]), (3, [67, 67, 66]), (7, [29] * 4 + [28] * 3)]
)
def test_what_is_asked_about_was_not_tuned_on(n_classes: int, held_out: list[int]) -> None:
    train, test = draw(classes(*[500] * n_classes))
    assert [count(train, label) for label in range(n_classes)] == [SHOTS] * n_classes
    assert [count(test, label) for label in range(n_classes)] == held_out
    assert len(test) == HELD_OUT
    assert len({sample.path for sample in (*train, *test)}) == len(train) + len(test)
    for sample in (*train, *test):
        assert sample.path.parent.name == str(sample.label)


def count(samples: list[Sample], label: int) -> int:
    return [sample.label for sample in samples].count(label)


def test_the_same_photographs_are_drawn_every_time() -> None:
    assert draw(classes(300, 300)) == draw(classes(300, 300))


def test_a_set_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_images, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"elpv_dataset .*make demo SET=elpv"):
        demo_images.SETS["elpv"]()


def test_ctrl_c_while_the_service_starts_takes_it_along(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[subprocess.Popen[str], Path]] = []

    def interrupted(process: "subprocess.Popen[str]", home: Path) -> demo.Service:
        started.append((process, home))
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_read_service", interrupted)
    with pytest.raises(KeyboardInterrupt), demo._service({}, keep=True):
        pytest.fail("the service was never ready")
    ((process, home),) = started
    assert process.returncode is not None
    assert not home.exists()


def test_settings_of_the_shell_do_not_reach_the_demo() -> None:
    shell = {"SHOTLINE_DATABASE_URL": "postgresql+psycopg://factory", "PATH": "/bin"}
    assert without_settings(shell) == {"PATH": "/bin"}
