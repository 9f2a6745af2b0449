"""Rebuilds the starter backbone: ``python -m models.starter.build``.

Needs the extra ``starter`` and no network; takes about two hours on one core.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from open_clip.tokenizer import SimpleTokenizer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from models.files import file_sha256
from models.memory import keep_freed_memory
from models.starter.distill import Recipe, distill, encode_phrases
from models.starter.export import attach_image_tower, export
from models.starter.grow import grow
from models.starter.phrases import imagenet_names, templates
from models.starter.student import (
    EMBED_DIM,
    PromptTokens,
    create_student,
    load_student,
    start_from_sentences,
    token_texts,
)
from models.starter.targets import (
    gather_phrases,
    held_out_classes,
    make_targets,
    split_targets,
)
from models.starter.teacher import (
    Projection,
    SentenceEncoder,
    load_classifier,
    project_classifier,
)

REPORT_NAME = "build_report.json"
PHOTO = 1  # the index of "a photo of a {}." among the templates

app = typer.Typer(add_completion=False)


class Build:
    """One build: what is read, what is learnt, what is written."""

    def __init__(
        self, seed: int, hold_out_names: bool, keep: Path | None, start: Path | None
    ) -> None:
        """Read the sources and set every phrase's target; takes minutes."""
        self._seed = seed
        self._classifier: nn.Module = load_classifier()
        self._projection: Projection = project_classifier(self._classifier, EMBED_DIM)
        names, tokenizer = imagenet_names(), SimpleTokenizer()
        self._held_out = held_out_classes(names, seed) if hold_out_names else frozenset[int]()
        phrases = gather_phrases(names, tokenizer, self._held_out)
        encode = SentenceEncoder(keep)
        every = make_targets(phrases, self._projection, encode)
        self._targets, self._held_back = split_targets(every, seed)
        if start:
            self._student = grow(load_student(start), tokenizer, encode, seed)
        else:
            self._student = create_student(seed)
            start_from_sentences(self._student, token_texts(tokenizer), encode)
        encode.save()
        self._templates = templates()
        self._tokens = PromptTokens(tokenizer, self._templates)

    def distill(self, recipe: Recipe, on_step: Callable[[float], None]) -> None:
        """Train the text tower, in the phases of the recipe."""
        for phase in recipe.phases:
            distill(
                self._student,
                self._targets,
                self._tokens,
                len(self._templates),
                recipe,
                phase,
                torch.Generator().manual_seed(self._seed),
                on_step,
            )

    def write(self, out: Path, recipe: Recipe) -> dict[str, Any]:
        """Write the backbone and the report of its build; return the report."""
        attach_image_tower(self._student, self._classifier, self._projection)
        weights = export(self._student, out)
        report = {
            "recipe": asdict(recipe),
            "seed": self._seed,
            "held_out_classes": sorted(self._held_out),
            "n_phrases": len(self._targets.phrases),
            "n_name_spellings": self._targets.n_names,
            **self._measure(),
            "sha256": file_sha256(weights),
        }
        (out / REPORT_NAME).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report

    def _measure(self) -> dict[str, float]:
        """How well texts in the photo prompt meet their targets; no image is used.

        `held_back_cosine` is of phrases that the student never read, `name_cosine` of the class
        names; `name_accuracy` is the share of names nearest to their own target among all names.
        """
        n_names = self._targets.n_names
        wanted = self._targets.vectors[:n_names]
        names = self._encode(self._targets.phrases[:n_names])
        back = self._encode(self._held_back.phrases)
        cosines = names @ wanted.T
        best, own = cosines.max(dim=1).values, cosines.diagonal()
        return {
            "held_back_cosine": (back * self._held_back.vectors).sum(dim=1).mean().item(),
            "name_cosine": own.mean().item(),
            "name_accuracy": (own >= best - 1e-6).double().mean().item(),
        }

    def _encode(self, phrases: Sequence[str]) -> Tensor:
        return encode_phrases(self._student, self._tokens, PHOTO, phrases)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("build/starter"),
    length: Annotated[
        float, typer.Option(min=0.0, max=10.0, help="Length of the distillation, 1 for the whole.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the first weights and the batches.")] = 0,
    hold_out_names: Annotated[
        bool, typer.Option(help="Keep 100 classes from the student, to measure new names.")
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="Folder of a narrower student to grow; only the last phases are run."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="File that keeps sentence embeddings for later builds.")
    ] = None,
) -> None:
    """Distil the text tower and write the backbone to a folder."""
    console = Console()
    keep_freed_memory()
    recipe = Recipe().scaled(length)
    if start:
        recipe = recipe.after_growth()
    with console.status("Encoding sentences, some minutes"):
        build = Build(seed, hold_out_names, keep, start)
    with step_progress(console, recipe.steps) as on_step:
        build.distill(recipe, on_step)
    console.print_json(data=build.write(out, recipe))


@contextmanager
def step_progress(console: Console, steps: int) -> Iterator[Callable[[float], None]]:
    """A progress bar over steps, with the loss and the time left."""
    columns = (
        TextColumn("Distilling, loss {task.fields[loss]:.3f}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=steps, loss=float("nan"))
        yield lambda loss: progress.update(task, advance=1, loss=loss)


if __name__ == "__main__":
    app()
