"""The whole job: up, push, promote, predict, a batch. Run in a network of its own.

`python -m tests.e2e.main_job FOLDER` prints what was decided.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from app.cli.api import Api
from tests.e2e.service import SHOTLINE, service_up
from tests.e2e.test_command_line import COLOURS, write_classes, write_image
from tests.integration.files import zip_of
from tests.integration.services import wait_for


def main(folder: Path) -> None:
    photographs = write_classes(folder / "photographs", "good", "scratch", n=8)
    image = write_image(folder / "new.png", 999, COLOURS["scratch"])
    with service_up(folder / "home") as service:
        pushed = subprocess.run(
            [
                *(*SHOTLINE, "push", photographs, "--project", "cap", "--promote"),
                *("--url", service.address, "--set", "steps=60", "--set", "folds=2"),
            ],
            env={**os.environ, "SHOTLINE_KEY": service.key},
            capture_output=True,
            text=True,
            check=False,
        )
        assert pushed.returncode == 0, pushed.stderr
        with Api(service.address, service.key) as api:
            project = api.project("cap")["id"]
            decided = api.predict(project, image.read_bytes())
            sent = api.call(
                "POST",
                f"/v1/projects/{project}/batches",
                content=zip_of({"1.png": image.read_bytes()}),
                headers={"Content-Type": "application/zip"},
            ).json()
            batch = f"/v1/batches/{sent['id']}"
            wait_for(lambda: api.call("GET", batch).json()["state"] == "succeeded", "the batch")
            results = api.call("GET", f"{batch}/results").text
    sys.stdout.write(json.dumps({"decision": decided["decision"], "results": results}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
