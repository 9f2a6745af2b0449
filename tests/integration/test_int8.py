"""INT8 answers for a version only after it was judged on that version's held-out images."""

import io
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import PIL.Image
import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.cli.main import app as shotline
from app.core.access import Principal
from app.core.database import Database
from app.core.settings import BackboneSettings, Settings
from app.core.storage import LocalStorage
from app.core.tables import Image, ProjectClass
from app.keys import service as keys
from app.main import create_app
from app.predictions import quantizing
from app.predictions.engines import speed
from app.predictions.engines.encoder import BackboneFacts, ImageEncoder
from app.predictions.engines.int8 import Int8Store, Verdict, int8_encoder
from app.predictions.engines.onnx_engine import FILE
from app.predictions.engines.store import checksums
from app.predictions.quantizing import calibration_pixels, in_production, quantize_and_judge
from app.projects.service import create_project
from app.registry.service import promote
from app.snapshots.service import freeze
from models.artifact import Artifact
from models.backbone import Backbone
from models.backbone_source import load_backbone
from models.dataset import LabelledImage
from models.decision import class_probabilities
from models.errors import BackboneUnavailable, BadInput
from models.imaging import View
from models.pixels import to_pixels
from models.progress import Progress
from tests.integration import tiny
from tests.integration.services import wait_for
from tests.integration.watched import run_watched

BOX = Principal(None, "tests", "admin")
TRAIN, HELD_OUT = 4, 5


def silent(title: str) -> Progress:
    del title
    return lambda done, total: None


def add_project(
    database: Database, storage: LocalStorage, name: str, artifact: Artifact, held_out: int
) -> UUID:
    """A project with photographs on both sides of the split and `artifact` in production."""
    with database.unit_of_work() as session:
        project = create_project(session, BOX, name=name)
        for place, spec in enumerate(artifact.header.classes):
            made = ProjectClass(
                project_id=project.id, position=place, name=spec.name, name_key=spec.name,
                prompt_name=spec.prompt_name, role=spec.role,
            )  # fmt: skip
            session.add(made)
            session.flush()
            for number in range(TRAIN + held_out):
                data = tiny.photograph(place, number)
                sha256 = storage.put(data)
                image = Image(
                    project_id=project.id, class_id=made.id, sha256=sha256, file_name=f"{number}",
                    format="PNG", width=40, height=40, size_bytes=len(data), group=sha256,
                    split="train" if number < TRAIN else "holdout",
                )  # fmt: skip
                session.add(image)
        session.flush()
        snapshot = freeze(session, project, storage)
        version = tiny.add_artifact(session, storage, project.id, artifact, snapshot)
        promote(session, BOX, project.id, "production", version.number)
        return project.id


@pytest.fixture(scope="module")
def artifacts(artifacts: list[Artifact]) -> list[Artifact]:
    """Versions that are less sure of themselves, so that eight bits show in their answers."""
    soft = [one.header.model_copy(update={"logit_scale": 1e-3}) for one in artifacts]
    return [Artifact(header, one.tensors) for header, one in zip(soft, artifacts, strict=True)]


@pytest.fixture(scope="module")
def other_artifact(tmp_path_factory: pytest.TempPathFactory, artifacts: list[Artifact]) -> Artifact:
    """A version of another backbone."""
    source = tiny.write_backbone(tmp_path_factory.mktemp("other"), seed=1)
    return tiny.tuned_artifact(load_backbone(source, device="cpu"), artifacts[0].header.classes)


@pytest.fixture(autouse=True)
def speeds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Images per second that are found whatever the machine is busy with."""
    given = {"fp32": 10.0, "openvino": 20.0, "onnx": 30.0}

    def say(encoders: dict[str, ImageEncoder]) -> speed.Speeds:
        return {name: {1: given[name], 16: given[name]} for name in encoders}

    monkeypatch.setattr(quantizing, "images_per_second", say)
    return given


@pytest.fixture
def project(database: Database, storage: LocalStorage, artifacts: list[Artifact]) -> UUID:
    """A project whose version can be judged."""
    return add_project(database, storage, "belts", artifacts[0], HELD_OUT)


@pytest.fixture
def int8(settings: Settings, database: Database, project: UUID) -> Verdict:
    """What `shotline quantize` finds of that project."""
    assert project
    return quantize_and_judge(settings, database, silent)


@pytest.fixture
def settings_on(settings: Settings) -> Settings:
    backbone = settings.backbone.model_copy(update={"int8": "on"})
    return settings.model_copy(update={"backbone": backbone})


def loaded(settings: Settings, verdict: Verdict) -> ImageEncoder:
    facts = BackboneFacts(verdict.source, verdict.digest, verdict.pixels)
    folder = Int8Store(settings.int8_folder).folder(verdict.digest)
    return int8_encoder(verdict.engine, folder, facts, 1, "INT8")


def probabilities(
    encoder: ImageEncoder, artifact: Artifact, photographs: Sequence[bytes]
) -> np.ndarray:
    spec, header = encoder.pixels, artifact.header
    pixels = [to_pixels(data, header.view, spec.size, spec.interpolation) for data in photographs]
    features = np.concatenate([encoder.encode(one[None]) for one in pixels])
    return class_probabilities(features, artifact.class_embeddings, header.logit_scale).max(axis=1)


# What `shotline quantize` finds


def test_every_version_in_production_is_judged_on_images_it_was_not_tuned_on(
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    other_artifact: Artifact,
    encoder: ImageEncoder,
) -> None:
    add_project(database, storage, "belts", artifacts[0], HELD_OUT)
    add_project(database, storage, "few", artifacts[1], HELD_OUT - 1)
    add_project(database, storage, "none", artifacts[2], 0)
    add_project(database, storage, "other", other_artifact, HELD_OUT)

    verdict = quantize_and_judge(settings, database, silent)

    belts, few, none, other = verdict.judgements
    assert belts.images == 3 * HELD_OUT
    assert few.refused == "it has too few held-out images of a class to judge by"
    assert none.refused == "it has no held-out images to judge by"
    assert other.refused == "it was tuned for another backbone"
    assert {one.fp32 for one in (few, none, other)} == {None}
    assert belts.fp32 is not None
    assert belts.int8 is not None
    assert verdict.accepted() == {artifacts[0].digest}
    assert verdict.engine == "onnx"
    assert verdict.images_per_second == {"fp32": {1: 10, 16: 10}, "int8": {1: 30, 16: 30}}
    # The version of another backbone shows nothing of this one's activations.
    assert verdict.calibration == {"images": 3 * 3 * TRAIN, "projects": 3, "seed": 0}
    assert Int8Store(settings.int8_folder).read(encoder.digest) is not None

    # By hand: the same images, one at a time.
    held_out = [(k, tiny.photograph(k, TRAIN + n)) for k in range(3) for n in range(HELD_OUT)]
    labels = np.array([label for label, _ in held_out])
    spec, view = encoder.pixels, artifacts[0].header.view
    for found, by in ((belts.fp32, encoder), (belts.int8, loaded(settings, verdict))):
        shown = [to_pixels(data, view, spec.size, spec.interpolation) for _, data in held_out]
        features = np.concatenate([by.encode(one[None]) for one in shown])
        right = (features @ artifacts[0].class_embeddings.T).argmax(axis=1) == labels
        assert found == pytest.approx(100 * right.mean())


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_the_encoder_computes_in_eight_bits_and_nearly_the_same(
    settings: Settings, int8: Verdict, tiny_backbone: Backbone, engine: str
) -> None:
    onnx = pytest.importorskip("onnx")
    file = Int8Store(settings.int8_folder).folder(int8.digest) / FILE
    kinds = {node.op_type for node in onnx.load(file).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    encoder = loaded(settings, int8.model_copy(update={"engine": engine}))
    spec = encoder.pixels
    shown = [tiny.photograph(place, 20 + number) for place in range(4) for number in range(4)]
    view = View()
    pixels = np.stack([to_pixels(one, view, spec.size, spec.interpolation) for one in shown])
    expected = tiny_backbone.encode_batch(torch.from_numpy(pixels)).numpy()
    features = encoder.encode(pixels)
    cosines = (features * expected).sum(axis=1)
    assert cosines.min() > 0.99
    assert np.abs(features - expected).max() > 1e-4  # it is not the fp32 encoder


def test_int8_that_is_slower_is_kept_as_a_verdict_and_not_used(
    settings: Settings, database: Database, project: UUID, speeds: dict[str, float]
) -> None:
    assert project
    speeds["fp32"] = 40.0
    verdict = quantize_and_judge(settings, database, silent)
    assert not verdict.accepted()
    assert verdict.judgements[0].against is None


def test_a_second_run_takes_the_place_of_the_first(
    settings: Settings, database: Database, int8: Verdict, speeds: dict[str, float]
) -> None:
    speeds["openvino"] = 50.0
    quantize_and_judge(settings, database, silent)
    found = Int8Store(settings.int8_folder).read(int8.digest)
    assert found is not None
    assert found.engine == "openvino"
    assert len(list(settings.int8_folder.iterdir())) == 1


def test_calibration_takes_turns_between_projects(encoder: ImageEncoder) -> None:
    def labelled(place: int, count: int) -> list[LabelledImage]:
        photographs = [tiny.photograph(place, number) for number in range(count)]
        return [
            LabelledImage(f"{number}", place, f"{number}", "train", lambda d=data: d, "name")
            for number, data in enumerate(photographs)
        ]

    few, none, many = labelled(0, 2), [], labelled(1, 30)
    cropped = View(roi=(0.0, 0.0, 0.5, 0.5))
    shown = [(cropped, few), (View(), none), (View(), many)]

    pixels, projects = calibration_pixels(shown, encoder.pixels, most=7)
    again, _ = calibration_pixels(shown, encoder.pixels, most=7)

    assert (len(pixels), projects) == (7, 2)
    assert (pixels == again).all()  # a seeded draw
    spec = encoder.pixels
    for image in few:  # as the project looks at them
        wanted = to_pixels(image.read(), cropped, spec.size, spec.interpolation)
        assert (pixels == wanted).all(axis=(1, 2, 3)).sum() == 1


def test_an_image_that_cannot_be_read_shows_nothing(encoder: ImageEncoder) -> None:
    whole = LabelledImage("a", 0, "a", "train", lambda: tiny.photograph(0, 0), "whole")
    broken = LabelledImage("b", 0, "b", "train", lambda: b"no image", "broken")
    with capture_logs() as logs:
        pixels, _ = calibration_pixels([(View(), [whole, broken])], encoder.pixels)
    assert len(pixels) == 1
    assert [line["image"] for line in logs] == ["broken"]


def test_an_image_that_is_gone_is_told_and_its_version_refused(
    settings: Settings, database: Database, storage: LocalStorage, project: UUID
) -> None:
    assert project
    with database.reading() as session:
        (one,) = in_production(session, storage)
    lost = one.images("holdout")[0].sha256
    next(path for path in settings.blob_folder.rglob(f"*{lost[4:]}*")).unlink()
    verdict = quantize_and_judge(settings, database, silent)
    assert "an image cannot be read" in str(verdict.judgements[0].refused)
    assert not verdict.accepted()


def test_without_a_version_in_production_there_is_nothing_to_calibrate_on(
    settings: Settings, database: Database
) -> None:
    with pytest.raises(BadInput, match="No project has a version"):
        quantize_and_judge(settings, database, silent)
    assert not settings.int8_folder.exists()


def test_gpus_and_missing_packages_are_refused(
    backbone_settings: BackboneSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BackboneUnavailable, match="INT8 is for CPUs"):
        quantizing.require_onnx(backbone_settings.model_copy(update={"device": "cuda:0"}))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackboneUnavailable, match="INT8 needs onnxruntime") as caught:
        quantizing.require_onnx(backbone_settings)
    assert "pip install 'shotline[onnx]'" in caught.value.fix


# The command


@pytest.fixture
def variables(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "HOME": settings.home,
        "DATABASE_URL": settings.database_url,
        "BACKBONE_SOURCE": settings.backbone.name,
        "BACKBONE_DEVICE": "cpu",
        "BACKBONE_ENGINE": "torch",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"SHOTLINE_{name}", str(value))


@pytest.mark.usefixtures("variables", "project")
def test_the_command_says_what_is_accepted(settings: Settings, artifacts: list[Artifact]) -> None:
    result = CliRunner().invoke(shotline, ["quantize", "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    (version,) = said["versions"]
    assert (version["project"], version["version"], version["accepted"]) == ("belts", 1, True)
    assert version["digest"] == artifacts[0].digest
    assert said["faster"] is True
    assert "Accepted for 1 of 1 versions" in result.stderr
    assert str(settings.int8_folder) in result.stderr.replace("\n", "")


@pytest.mark.usefixtures("variables")
@pytest.mark.parametrize("fp32", [10.0, 40.0])
def test_nothing_accepted_is_a_result_and_no_error(
    database: Database,
    storage: LocalStorage,
    artifacts: list[Artifact],
    speeds: dict[str, float],
    fp32: float,
) -> None:
    speeds["fp32"] = fp32
    add_project(database, storage, "belts", artifacts[0], 0)
    result = CliRunner().invoke(shotline, ["quantize"])
    assert result.exit_code == 0, result.output
    assert "belts" in result.stdout
    wanted = "No version is accepted" if fp32 < 30 else "INT8 is not faster than fp32"
    assert wanted in result.stderr


# What the gateway does with it


@pytest.fixture
def start(
    settings_on: Settings, database: Database, storage: LocalStorage, encoder: ImageEncoder
) -> Callable[[], FastAPI]:
    """Make a gateway with INT8 on; the test runs it."""
    return lambda: create_app(
        settings_on, database=database, storage=storage, load_encoder=lambda: encoder
    )


def between(share: float) -> bytes:
    """A photograph that two classes have a share in, so that probabilities are no round numbers."""
    first, second = (np.array(COLOURS[place]) for place in (0, 1))
    noise = np.random.default_rng(0).integers(-9, 9, (40, 40, 3))
    out = io.BytesIO()
    pixels = (share * first + (1 - share) * second + noise).clip(0, 255).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


COLOURS = ((200, 60, 60), (60, 60, 200))
PHOTOGRAPHS = [between(share) for share in np.linspace(0.1, 0.9, 9)]


def asked(client: TestClient, database: Database, project: UUID) -> list[float]:
    """Return the probabilities that the gateway answers with."""
    found = []
    for data in PHOTOGRAPHS:
        headers = {"content-type": "image/png"} | key_of(client, database)
        answer = client.post(f"/v1/projects/{project}/predict", content=data, headers=headers)
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["probability"])
    return found


def key_of(client: TestClient, database: Database) -> dict[str, str]:
    app: FastAPI = client.app  # type: ignore[assignment]
    if not hasattr(app.state, "key"):
        with database.unit_of_work() as session:
            made = keys.create_key(session, name="k", role="admin", project_id=None)
        app.state.gateway.keys.refresh()
        app.state.key = {"Authorization": f"Bearer {made.plaintext}"}
    found: dict[str, str] = app.state.key
    return found


def wait_until_ready(client: TestClient) -> dict[str, str]:
    """Return what `/readyz` says about the parts."""
    wait_for(lambda: client.get("/readyz").status_code == 200, "the gateway")
    about: dict[str, str] = client.get("/readyz").json()["about"]
    return about


def test_accepted_versions_are_answered_in_int8_and_others_are_not(
    start: Callable[[], FastAPI],
    settings: Settings,
    database: Database,
    storage: LocalStorage,
    project: UUID,
    int8: Verdict,
    artifacts: list[Artifact],
    encoder: ImageEncoder,
) -> None:
    fp32 = probabilities(encoder, artifacts[0], PHOTOGRAPHS)
    reduced = probabilities(loaded(settings, int8), artifacts[0], PHOTOGRAPHS)
    assert np.abs(fp32 - reduced).max() > 1e-4  # so that it is seen who answers

    with TestClient(start()) as client:
        about = wait_until_ready(client)
        assert "INT8 by onnx for 1 versions" in about["int8"]
        answers = asked(client, database, project)
        assert answers == pytest.approx(reduced, abs=2e-6)

        with database.unit_of_work() as session:  # nobody has judged this one
            version = tiny.add_artifact(session, storage, project, artifacts[1])
            promote(session, BOX, project, "production", version.number)
        client.app.state.predictions.models.refresh()  # type: ignore[attr-defined]
        expected = probabilities(encoder, artifacts[1], PHOTOGRAPHS)
        assert asked(client, database, project) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("why", ["slower", "costs", "damaged", "nothing", "other"])
def test_whatever_stands_against_int8_fp32_answers(
    why: str,
    start: Callable[[], FastAPI],
    settings: Settings,
    database: Database,
    project: UUID,
    artifacts: list[Artifact],
    encoder: ImageEncoder,
    int8: Verdict,
) -> None:
    store = Int8Store(settings.int8_folder)
    folder = store.folder(int8.digest)
    if why == "damaged":
        data = bytearray((folder / FILE).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / FILE).write_bytes(data)
    elif why == "nothing":
        shutil.rmtree(folder)
    else:
        verdict = {
            "slower": int8.model_copy(
                update={"images_per_second": {"fp32": {1: 9}, "int8": {1: 8}}}
            ),
            "costs": int8.model_copy(
                update={
                    "judgements": [
                        int8.judgements[0].model_copy(update={"fp32": 90.0, "int8": 89.4})
                    ]
                }
            ),
            "other": int8.model_copy(update={"digest": "sha256:another"}),
        }[why]
        written = verdict.model_copy(update={"files": files_of(folder)})
        (folder / "verdict.json").write_text(written.model_dump_json())

    with capture_logs() as logs, TestClient(start()) as client:
        about = wait_until_ready(client)
        answers = asked(client, database, project)

    expected = probabilities(encoder, artifacts[0], PHOTOGRAPHS)
    assert answers == pytest.approx(expected, abs=2e-6)
    said = [line for line in logs if line["event"] == "int8_not_used"]
    assert [line["log_level"] for line in said] == ["warning"]
    wanted = {"slower": "it is not faster", "costs": "INT8 costs 0.6 points"}
    assert wanted.get(why, "nothing was accepted for this backbone") in about["int8"]


def files_of(folder: Path) -> dict[str, str]:
    return {FILE: checksums(folder)[FILE]}


def test_off_nothing_of_it_is_read(
    client: TestClient,
    int8: Verdict,
    project: UUID,
    artifacts: list[Artifact],
    encoder: ImageEncoder,
) -> None:
    assert int8.accepted()
    assert "int8" not in client.get("/readyz").json()["parts"]
    answer = client.post(
        f"/v1/projects/{project}/predict",
        content=PHOTOGRAPHS[0],
        headers={"content-type": "image/png"},
    )
    expected = probabilities(encoder, artifacts[0], PHOTOGRAPHS[:1])
    assert answer.json()["probability"] == pytest.approx(expected[0], abs=2e-6)


# What is told to others


def test_nothing_is_reported_to_anyone(backbone_settings: BackboneSettings, tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import numpy as np
from app.predictions.engines.encoder import BackboneFacts
from app.predictions.engines.int8 import int8_encoder
from app.core.settings import BackboneSettings
from app.predictions.quantizing import write_int8
from models.imaging import PixelSpec

folder = Path({str(tmp_path / "int8")!r})
folder.mkdir()
images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
settings = BackboneSettings(**{backbone_settings.model_dump()!r})
write_int8(settings, images, folder, lambda done, total: None)
facts = BackboneFacts("s", "d", PixelSpec(32, (0.5,) * 3, (0.5,) * 3, "bicubic"))
for engine in ("openvino", "onnx"):
    int8_encoder(engine, folder, facts, 1, engine)
"""
    assert run_watched(code, tmp_path) == ([], [])
