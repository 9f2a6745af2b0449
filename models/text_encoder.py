"""The text tower, driven with embeddings instead of token ids.

open_clip's own ``encode_text`` starts from ids and runs all positions. Prompt tuning starts from
embeddings (context tokens have no id), and under a causal mask no position after the end-of-text
token can change that token: only the first ``max(eot) + 1`` positions are run, rounded up to a
multiple of `BLOCK`, with identical results. Training is not rounded up, and what it leaves out
beside (see `models.text_blocks`) changes its results by no more than rounding.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.deep_blocks import run_blocks
from models.errors import BackboneUnavailable
from models.text_blocks import has_plain_blocks, run_to_eot

# The CPU's softmax adds 16 floats (one vector register) at a time: another number of positions
# would add the same terms in another order, and round them differently.
BLOCK = 16

# Prompts that are run at once. A backward pass needs some megabytes of each prompt; beyond one
# chunk it keeps the prompts alone, and runs the tower on a chunk again when it gets there.
CHUNK = 128


class Prompts(NamedTuple):
    """A batch of prompts as the text tower reads them.

    Attributes:
        embeddings: token embeddings without positions, `(n, length, width)`.
        eot: the position of each prompt's end-of-text token, `(n,)`.
    """

    embeddings: Float[Tensor, "n length width"]
    eot: Int[Tensor, " n"]


class TextEncoder(nn.Module):
    """The text tower of a CLIP or a CustomTextCLIP of open_clip.

    Attributes:
        chunk: prompts that are run at once; None for `CHUNK`.

    Raises:
        BackboneUnavailable: a tower that is not open_clip's own TextTransformer, or that pools
            or masks in a way that embeddings alone cannot drive.
    """

    attn_mask: Float[Tensor, "context_length context_length"] | None

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        # CLIP keeps the tower's parts on itself, CustomTextCLIP under `.text`.
        tower: Any = getattr(clip, "text", clip)
        _check_tower(tower)
        self.token_embedding: nn.Embedding = tower.token_embedding
        self.positional_embedding: nn.Parameter = tower.positional_embedding
        self.transformer: nn.Module = tower.transformer
        self._plain = has_plain_blocks(self.transformer)
        self.ln_final: nn.Module = tower.ln_final
        self.text_projection = tower.text_projection
        mask = tower.attn_mask
        self.causal = mask is not None and bool(
            torch.equal(mask.cpu(), torch.full_like(mask.cpu(), float("-inf")).triu_(1))
        )
        self.register_buffer("attn_mask", mask, persistent=False)
        self.chunk: int | None = None

    @property
    def width(self) -> int:
        """The width of a token embedding."""
        return self.token_embedding.embedding_dim

    @property
    def context_length(self) -> int:
        """How many positions the tower has."""
        return self.positional_embedding.shape[0]

    @property
    def n_layers(self) -> int:
        """How many blocks the tower has."""
        blocks: Any = self.transformer.resblocks
        return len(blocks)

    def positions(self, eot: Int[Tensor, " n"]) -> int:
        """How many positions have to be run for prompts that end at `eot`."""
        if not self.causal:
            return self.context_length
        return min(-(-(int(eot.max()) + 1) // BLOCK) * BLOCK, self.context_length)

    def embed(self, tokens: Int[Tensor, "n length"]) -> Prompts:
        """Look up the embeddings of CLIP token ids; end-of-text has the highest id."""
        return Prompts(self.token_embedding(tokens), tokens.argmax(dim=-1))

    def forward(
        self, prompts: Prompts, *, cut: bool = True, layers: Sequence[Tensor] = ()
    ) -> Float[Tensor, "n embed_dim"]:
        """Return the text features, not normalised, `(n, embed_dim)`.

        Beyond a chunk of prompts, more of them take no more memory than to hold them.

        Args:
            prompts: at least `positions(prompts.eot)` positions long.
            cut: run only the positions that can matter; `False` runs all that are given.
            layers: deep prompts for the positions after start-of-text, see `run_blocks`.
        """
        run = partial(self._run, cut=cut, layers=layers)
        size = self.chunk or CHUNK
        if len(prompts.eot) <= size:
            return run(*prompts)
        chunks = zip(prompts.embeddings.split(size), prompts.eot.split(size), strict=True)
        # Nothing is drawn in the tower, so that there is no state of a generator to go back to.
        again = partial(checkpoint, run, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([again(*chunk) for chunk in chunks])

    def _run(
        self,
        embeddings: Float[Tensor, "n length width"],
        eot: Int[Tensor, " n"],
        *,
        cut: bool,
        layers: Sequence[Tensor],
    ) -> Float[Tensor, "n embed_dim"]:
        length = embeddings.shape[1]
        training = torch.is_grad_enabled() and self._plain
        if cut and training and self.causal:
            length = int(eot.max()) + 1
        elif cut:
            length = min(length, self.positions(eot))
        hidden = embeddings[:, :length] + self.positional_embedding[:length]
        mask = None if self.attn_mask is None else self.attn_mask[:length, :length]
        if training:
            ends = run_to_eot(self.transformer, hidden, eot, layers, mask)
            return self._project(self.ln_final(ends))
        if layers:
            hidden = run_blocks(self.transformer, hidden, layers, start=1, attn_mask=mask)
        else:
            hidden = self.transformer(hidden, attn_mask=mask)
        rows = torch.arange(hidden.shape[0], device=hidden.device)
        return self._project(self.ln_final(hidden)[rows, eot])

    def _project(self, pooled: Float[Tensor, "n width"]) -> Float[Tensor, "n embed_dim"]:
        if isinstance(self.text_projection, nn.Linear):
            return self.text_projection(pooled)
        return pooled if self.text_projection is None else pooled @ self.text_projection


def _check_tower(tower: nn.Module) -> None:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    if not isinstance(getattr(tower, "positional_embedding", None), nn.Parameter):
        reason = "its text tower is not open_clip's own transformer"
    elif pool not in {"argmax", "eos"}:
        reason = f"its text tower pools by {pool!r}, not at the end-of-text token"
    elif getattr(tower, "cls_emb", None) is not None or getattr(tower, "use_pad_mask", False):
        reason = "its text tower masks by token ids, which context tokens do not have"
    else:
        return
    raise BackboneUnavailable(
        f"Prompts cannot be tuned for this backbone: {reason}.",
        fix="Choose a CLIP with a causal text tower, such as ViT-B-32 or the starter.",
        field="backbone",
    )
