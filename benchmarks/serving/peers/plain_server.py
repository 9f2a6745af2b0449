"""FastAPI and open_clip as people write it: one handler, one image a request.

`python -m benchmarks.serving.peers.plain_server SOURCE PORT`, in the peers' environment.
"""

import sys

import uvicorn
from fastapi import FastAPI, UploadFile

from benchmarks.serving.peers.classifier import Classifier, answer


def main(source: str, port: int) -> None:
    """Serve until terminated."""
    app, classifier = FastAPI(), Classifier(source)

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/predict")
    def predict(image: UploadFile) -> dict[str, object]:
        pixels = classifier.pixels(image.file.read())
        return answer(classifier.probabilities(pixels[None])[0])

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
