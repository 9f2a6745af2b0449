"""LitServe and open_clip, with LitServe's batching.

`python -m benchmarks.serving.peers.litserve_server SOURCE PORT MAX_BATCH`, in the peers'
environment.
"""

import sys
from typing import cast

import litserve
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from torch import Tensor

from benchmarks.serving.peers.classifier import Classifier, answer

_BATCH_SECONDS = 0.005


class Api(litserve.LitAPI):  # type: ignore[misc]  # LitServe has no annotations
    """Decode in the worker, stack, encode, unstack: LitServe's own hooks."""

    def __init__(self, source: str, max_batch: int) -> None:
        super().__init__(max_batch_size=max_batch, batch_timeout=_BATCH_SECONDS)
        self._source = source

    def setup(self, device: str) -> None:  # noqa: ARG002 - the CPU
        """Load the backbone in the worker's process."""
        self._classifier = Classifier(self._source)

    def decode_request(self, request: Request) -> Tensor:
        """Return the pixels of the uploaded image; LitServe hands over a `Request`'s form."""
        image = cast("FormData", request)["image"]
        assert isinstance(image, UploadFile)  # noqa: S101 - what a form's file is
        return self._classifier.pixels(image.file.read())

    def predict(self, x: Tensor) -> Tensor:
        """Return the probabilities of a batch, which LitServe has stacked."""
        return self._classifier.probabilities(x)

    def encode_response(self, output: Tensor) -> dict[str, object]:
        """Return the answer to one request."""
        return answer(output)


def main(source: str, port: int, max_batch: int) -> None:
    """Serve until terminated."""
    server = litserve.LitServer(Api(source, max_batch), accelerator="cpu", timeout=60)
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
