"""The phrases that the text tower learns to read.

Three sources, each carried by a package that is installed already: the spellings of the 1,000
ImageNet classes, the WordNet noun synsets that timm names, and the whole words of CLIP's own
vocabulary. A prompt around a phrase does not change its meaning here: "a photo of a tench." has
the target of "tench".
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import torch
from open_clip import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES
from timm.data.imagenet_info import ImageNetInfo

PHOTO_TEMPLATE = "a photo of a {}."
BARE_TEMPLATE = "{}"
# Articles and endings that people type and that open_clip's 80 templates lack.
PLAIN_TEMPLATES = (
    BARE_TEMPLATE,
    PHOTO_TEMPLATE,
    "a photo of a {}",
    "a photo of {}.",
    "a {}",
    "{}.",
)

MIN_WORD_LETTERS = 3  # shorter entries of the vocabulary are syllables and initials
SYNSETS = "imagenet-22k"  # timm's name of the full list of noun synsets


@dataclass(frozen=True)
class Phrases:
    """What the student reads, lower case, each phrase once.

    `spellings` maps each way to write an ImageNet class to the classes it means (more than one
    for "missile"). `others` maps every further phrase to its dictionary entries, "lemmas:
    definition" (none for a plain word, several for one with many senses). `anchors` are the texts
    of each class that the regression learns from: open_clip's name, which is the plainest, and
    WordNet's entry.
    """

    spellings: Mapping[str, tuple[int, ...]]
    others: Mapping[str, tuple[str, ...]]
    anchors: Mapping[int, tuple[str, ...]]


def normalise(phrase: str) -> str:
    """Lower-case a phrase and make its white space single, as CLIP's tokenizer does."""
    return " ".join(phrase.lower().split())


def templates() -> tuple[str, ...]:
    """Every prompt with "{}" where the phrase goes: ours, then open_clip's 80 of ImageNet."""
    return (*PLAIN_TEMPLATES, *(template("{}") for template in OPENAI_IMAGENET_TEMPLATES))


def imagenet_names() -> list[tuple[str, ...]]:
    """The spellings of each ImageNet class in class order: open_clip's name, WordNet's lemmas."""
    pairs = zip(IMAGENET_CLASSNAMES, dictionary("imagenet-1k"), strict=True)
    return [tuple(dict.fromkeys((normalise(name), *lemmas(entry)))) for name, entry in pairs]


def dictionary(subset: str) -> list[str]:
    """WordNet's entries, "tench, Tinca tinca: freshwater fish …", of one of timm's synset lists."""
    return list(ImageNetInfo(subset).label_descriptions(detailed=True))


def lemmas(entry: str) -> list[str]:
    """The lemmas of an entry: "tench, Tinca tinca: freshwater …" gives tench, tinca tinca."""
    return [normalise(lemma) for lemma in entry.partition(": ")[0].split(",") if lemma.strip()]


def vocabulary_words(vocabulary: Iterable[str]) -> list[str]:
    """The whole words of a BPE vocabulary: entries that end a word, ASCII letters only."""
    ending = "</w>"
    words = (entry.removesuffix(ending) for entry in vocabulary if entry.endswith(ending))
    return [w for w in words if len(w) >= MIN_WORD_LETTERS and w.isascii() and w.isalpha()]


def gather(
    names: Sequence[Sequence[str]],
    class_entries: Sequence[str],
    entries: Iterable[str],
    words: Iterable[str],
    held_out: Set[int] = frozenset(),
) -> Phrases:
    """Merge the sources into one set of phrases, without the held-out classes.

    `names` and `class_entries` hold the spellings and the dictionary entry of each class. A phrase
    or an entry is dropped if any spelling of a class in `held_out` occurs in it as whole words, so
    that "golf ball" also drops "golf ball bag".
    """
    hidden = Mentions([spelling for index in sorted(held_out) for spelling in names[index]])
    classes = _meanings(names)
    others: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for lemma in lemmas(entry):
            others[lemma].extend([] if hidden(entry) else [entry])
    for word in words:
        others[word].extend([])
    return Phrases(
        {s: tuple(c) for s, c in classes.items() if not hidden(s)},
        {p: tuple(e) for p, e in others.items() if p not in classes and not hidden(p)},
        {
            index: tuple(text for text in (spellings[0], entry) if not hidden(text))
            for index, (spellings, entry) in enumerate(zip(names, class_entries, strict=True))
            if index not in held_out
        },
    )


class Mentions:
    """Tells whether a phrase contains one of some names as whole words."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(" ".join(_words(name)) for name in names)
        self._longest = max((len(_words(name)) for name in names), default=0)

    def __call__(self, phrase: str) -> bool:
        """Whether any of the names occurs in `phrase`; case, hyphens and punctuation aside."""
        words = _words(phrase)
        spans = (
            " ".join(words[start : start + length])
            for length in range(1, self._longest + 1)
            for start in range(len(words) - length + 1)
        )
        return any(span in self._names for span in spans)


def choose_held_out(always: Sequence[int], total: int, count: int, seed: int) -> frozenset[int]:
    """Choose `count` of `total` classes to hold out: those in `always`, then a seeded draw."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    rest = [index for index in order if index not in set(always)]
    return frozenset([*always, *rest[: count - len(always)]])


def _meanings(names: Sequence[Sequence[str]]) -> dict[str, list[int]]:
    """The classes of each spelling; the first spelling of a class wins over others' lemmas."""
    firsts = {spellings[0] for spellings in names}
    classes: dict[str, list[int]] = defaultdict(list)
    for index, spellings in enumerate(names):
        for rank, spelling in enumerate(spellings):
            if rank == 0 or spelling not in firsts:
                classes[spelling].append(index)
    return classes


def _words(phrase: str) -> list[str]:
    return re.findall(r"[\w'.]+", phrase.lower())
