"""What the student learns: every phrase and the text feature that it should have."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn.functional import normalize

from models.starter.distill import Targets
from models.starter.phrases import (
    SYNSETS,
    Phrases,
    choose_held_out,
    dictionary,
    gather,
    normalise,
    vocabulary_words,
)
from models.starter.teacher import KernelRidge, Projection

N_HELD_OUT = 100  # classes; the 20 of the benchmark's images are always among them
N_HELD_BACK = 1000  # phrases kept from the student, to see how well it reads new ones
# The classes of the benchmark's images: every one is held out, so that each of its images counts.
BENCHMARK_NAMES = (
    "Samoyed", "cassette player", "English foxhound", "English springer", "gas pump", "dingo",
    "Shih-Tzu", "beagle", "church", "Border terrier", "French horn", "Rhodesian ridgeback",
    "golf ball", "tench", "golden retriever", "chain saw", "parachute", "garbage truck",
    "Old English sheepdog", "Australian terrier",
)  # fmt: skip


Encoder = Callable[[Sequence[str]], Tensor]


def held_out_classes(names: Sequence[Sequence[str]], seed: int) -> frozenset[int]:
    """The classes of the benchmark's images and a seeded choice of others, 100 in all."""
    wanted = {normalise(name) for name in BENCHMARK_NAMES}
    always = [index for index, spellings in enumerate(names) if wanted & set(spellings)]
    if len(always) != len(BENCHMARK_NAMES):
        raise ValueError(
            f"{len(always)} classes answer to the {len(BENCHMARK_NAMES)} names of the benchmark: "
            "the pinned versions of open_clip and timm are expected"
        )
    return choose_held_out(always, len(names), N_HELD_OUT, seed)


def gather_phrases(
    names: Sequence[Sequence[str]], tokenizer: SimpleTokenizer, held_out: frozenset[int]
) -> Phrases:
    """All phrases of the installed sources, without the held-out classes."""
    words = vocabulary_words(tokenizer.encoder)
    return gather(names, dictionary("imagenet-1k"), dictionary(SYNSETS), words, held_out)


def make_targets(phrases: Phrases, projection: Projection, encode: Encoder) -> Targets:
    """The target of every phrase: its class's row, or what the kernel regression predicts.

    A spelling of several classes gets the normalised mean of their rows. A phrase that WordNet
    explains gets the normalised mean over its own prediction and those of its entries.
    """
    spellings, others = list(phrases.spellings), list(phrases.others)
    rows = torch.stack([projection.rows[list(phrases.spellings[s])].mean(0) for s in spellings])
    anchors = [(text, index) for index, texts in phrases.anchors.items() for text in texts]
    embeddings = encode([text for text, _ in anchors])
    regression = KernelRidge(embeddings, projection.rows[[index for _, index in anchors]])
    texts = sorted({*others, *(e for p in others for e in phrases.others[p])})
    predicted = dict(zip(texts, normalize(regression.predict(encode(texts)), dim=1), strict=True))
    means = [
        torch.stack([predicted[text] for text in (phrase, *phrases.others[phrase])]).mean(0)
        for phrase in others
    ]
    vectors = normalize(torch.cat([rows, torch.stack(means)]), dim=1)
    # A class may share every one of its names with a class that is held out.
    plain = {texts[0] for texts in phrases.anchors.values() if texts}
    indices = [index for index, spelling in enumerate(spellings) if spelling in plain]
    return Targets([*spellings, *others], vectors, len(spellings), torch.tensor(indices))


def split_targets(targets: Targets, seed: int) -> tuple[Targets, Targets]:
    """Set N_HELD_BACK phrases that are no class name aside, by a seeded draw."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(targets.phrases) - targets.n_names, generator=generator)
    order = order + targets.n_names
    back, rest = order[:N_HELD_BACK], order[N_HELD_BACK:].sort().values
    kept = torch.cat([torch.arange(targets.n_names), rest])
    return (
        replace(
            targets,
            phrases=[targets.phrases[i] for i in kept],
            vectors=targets.vectors[kept],
        ),
        Targets([targets.phrases[i] for i in back], targets.vectors[back], 0, torch.tensor([])),
    )
