"""The student: a small CLIP text tower, and its first token embeddings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

EMBED_DIM = 512
IMAGE_SIZE = 260  # pixels: what tf_efficientnet_lite2 was trained at
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite2",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": IMAGE_SIZE,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 280, "heads": 4, "layers": 3},
}
TOKEN_STD = 0.05  # of the first token embeddings; small beside what the blocks add


def create_student(seed: int) -> open_clip.CLIP:
    """A CLIP of this project's shape with random weights, the same ones for the same seed."""
    # open_clip draws its first weights from the global generator and offers no other way in.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return open_clip.CLIP(**MODEL_CONFIG)


def load_student(folder: Path) -> open_clip.CLIP:
    """The CLIP of a folder in open_clip's local-dir form."""
    return open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)


def token_texts(tokenizer: SimpleTokenizer) -> list[str]:
    """What each token of the vocabulary says, "" for the start and the end of a text."""
    special = set(tokenizer.all_special_ids)
    return [
        "" if index in special else tokenizer.decode([index]).strip()
        for index in range(tokenizer.vocab_size)
    ]


def start_from_sentences(
    model: open_clip.CLIP, texts: Sequence[str], encode: Callable[[Sequence[str]], Tensor]
) -> None:
    """Set the token embeddings to the principal components of the tokens' sentence embeddings.

    The components keep their relative size and are scaled to TOKEN_STD on the whole.
    """
    embeddings = encode(texts)
    centred = (embeddings - embeddings.mean(dim=0)).double()
    values, vectors = torch.linalg.eigh(centred.T @ centred)
    width = model.token_embedding.embedding_dim
    components = centred @ vectors[:, values.argsort(descending=True)[:width]]
    with torch.no_grad():
        model.token_embedding.weight.copy_(components * (TOKEN_STD / components.std()))


def encode_tokens(model: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Text features of `(batch, length)` tokens with length at most 77; not normalised.

    Attention is causal and the feature is read at the end-of-text token, so what is cut off after
    it could not have changed the result: this equals `model.encode_text` on the padded tokens.
    """
    length = tokens.shape[1]
    hidden = model.token_embedding(tokens) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    ends = hidden[torch.arange(len(tokens)), tokens.argmax(dim=1)]
    features: Tensor = model.ln_final(ends) @ model.text_projection
    return features


class PromptTokens:
    """Tokens of prompts, put together from those of templates and phrases, each encoded once.

    CLIP's tokenizer splits at white space and punctuation before it merges letters, so the
    pieces of "a photo of a {}." and of "tench" are the pieces of "a photo of a tench.".
    """

    def __init__(self, tokenizer: SimpleTokenizer, templates: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}
        self._templates = [
            tuple(tokenizer.encode(part) for part in template.split("{}")) for template in templates
        ]

    def __call__(self, template: int, phrase: str) -> Tensor:
        """The tokens of a phrase in the template of that index, start and end included."""
        if phrase not in self._known:
            self._known[phrase] = self._tokenizer.encode(phrase)
        before, after = self._templates[template]
        start, end = self._tokenizer.sot_token_id, self._tokenizer.eot_token_id
        room = self._tokenizer.context_length - 2 - len(before) - len(after)
        return torch.tensor([start, *before, *self._known[phrase][:room], *after, end])

    def pad(self, rows: Sequence[Tensor]) -> Tensor:
        """Stack rows of tokens into `(len(rows), longest)`, zeros after the end."""
        return pad_sequence(list(rows), batch_first=True)
