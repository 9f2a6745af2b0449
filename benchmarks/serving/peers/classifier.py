"""What the LitServe and the plain server share: an open_clip backbone and random classes."""

import io

import open_clip
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize


class Classifier:
    """Zero-shot classification as open_clip's own README shows it, the class embeddings given."""

    def __init__(self, source: str, classes: int = 10) -> None:
        self._model, self._preprocess = open_clip.create_model_from_pretrained(source)
        self._model.eval()
        with torch.no_grad():
            dim = self._model.encode_image(self.pixels(_black())[None]).shape[1]
        embeddings = torch.randn(dim, classes, generator=torch.Generator().manual_seed(0))
        self._embeddings = normalize(embeddings, dim=0)

    def pixels(self, data: bytes) -> Tensor:
        """Return an image as the model reads it, `(3, size, size)`."""
        pixels: Tensor = self._preprocess(Image.open(io.BytesIO(data)).convert("RGB"))
        return pixels

    def probabilities(self, pixels: Tensor) -> Tensor:
        """Return `(b, n_classes)` of a batch `(b, 3, size, size)`."""
        with torch.no_grad():
            features = normalize(self._model.encode_image(pixels), dim=-1)
            return (100.0 * features @ self._embeddings).softmax(dim=-1)


def answer(probabilities: Tensor) -> dict[str, object]:
    """Return an image's answer as JSON."""
    best = int(probabilities.argmax())
    return {"label": best, "probability": float(probabilities[best]), "all": probabilities.tolist()}


def _black() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "PNG")
    return buffer.getvalue()
