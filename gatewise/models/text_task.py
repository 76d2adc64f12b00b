"""Texts for any model that predicts the next token: streams in parallel, state carried along.

T = steps of a chunk, B = parallel streams, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from gatewise.models import processes
from gatewise.models.corpus import IGNORED, Corpus, Streams, read_corpus
from gatewise.models.cuts import Cuts
from gatewise.models.formats import read_lines, read_whole
from gatewise.models.sampling import with_own
from gatewise.models.settings import Settings
from gatewise.models.task import Loss, Predictor, Source, Task
from gatewise.models.token_model import TokenModel
from gatewise.models.vocabulary import Encoded, Vocabulary

_EVALUATION_BATCH = 64
_EVALUATION_STREAM = 1000  # tokens of each at least
_EVALUATION_CHUNK = 64
_EVALUATION_WARM = 128  # tokens read before each stream but the first, which begins the text
_WORDS = 10_000  # most words of a vocabulary, where nothing else is said

M = TypeVar("M", bound=TokenModel)
P = TypeVar("P", bound="TextPredictor[Any]")


class TextPredictor(Predictor[M]):
    """A model of tokens with its vocabulary: scores texts, line by line or as a whole."""

    def __init__(self, model: M, vocabulary: Vocabulary) -> None:
        self.model, self.vocabulary = model, vocabulary

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each line with its perplexity, read after a line break; an empty line has none."""
        for line in read_lines(path):
            held = self.vocabulary.measure("\n" + line)
            figure = self.score(held)["perplexity"] if len(held.ids) > 1 else None
            yield {"perplexity": figure, "text": line}

    def evaluate(self, path: Path) -> dict[str, float]:
        return self.score(self.vocabulary.measure(read_whole(path)))

    def render(self, row: dict[str, Any]) -> str:
        figure = row["perplexity"]
        return f"{'-' if figure is None else f'{figure:.3f}'}\t{row['text']}"

    def score(self, held: Encoded) -> dict[str, float]:
        """How well the model predicts a text, each token once, in parallel streams.

        A stream has read what stands before it, so that only the text's own first tokens are
        predicted from an empty state. The figures are those of `Encoded.figures`.
        """
        if len(held.ids) < 2:
            raise ValueError(f"a text must have at least two tokens, got {len(held.ids)}")
        batch = max(1, min(_EVALUATION_BATCH, len(held.ids) // _EVALUATION_STREAM))
        nats, state = 0.0, None
        with torch.no_grad():
            streams = Streams(held.ids, batch, _EVALUATION_CHUNK, _EVALUATION_WARM)
            for inputs, targets in streams.chunks():
                output, state = self.model.hidden(inputs, state)
                nats += self.model.surprisal(self.model.dropped(output), targets).item()
        return held.figures(nats)


class TextTask(Task[P]):
    """Predict the next token of a text, streams in parallel, the state carried on.

    Args:
        predictor: the model and its vocabulary.
        corpus: the text.
        settings: for the number of streams and the length of training.
        chunk: T, steps of truncated BPTT.
        own: scheduled sampling (Bengio et al., 2015): the probability, reached over the first half
            of training, that the model reads its own draw instead of the text. What it draws
            comes from one pass over the text (Mihaylova & Martins, 2019).
        spread: standard deviation of the steps of a chunk; see `Cuts`.
    """

    items = "characters"
    loss_name = "bits_per_character"
    metric = "bits_per_character"

    def __init__(
        self,
        predictor: P,
        corpus: Corpus,
        settings: Settings,
        chunk: int,
        own: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        self.predictor, self.corpus, self.own = predictor, corpus, own
        self.name, self.fingerprint = corpus.name, corpus.fingerprint
        train = predictor.vocabulary.measure(corpus.train)
        self.held_out = predictor.vocabulary.measure(corpus.held_out)
        if len(train.ids) < 2 or len(self.held_out.ids) < 2:
            raise ValueError(f"{corpus.name} has too few tokens to learn from")
        self._characters_per_token = train.characters / (len(train.ids) - 1)
        self._streams = Streams(train.ids, settings.batch, chunk)
        self._cuts = Cuts(self._streams.length, chunk, spread, settings.seed)
        self._growing = settings.about_steps(len(self._cuts)) / 2
        self._state: Any = None  # carried from chunk to chunk

    @property
    def vocabulary(self) -> Vocabulary:
        return self.predictor.vocabulary

    def __len__(self) -> int:
        return len(self._cuts)

    def loss(self, epoch: int, batch: int) -> Loss:
        model: TokenModel = self.predictor.model
        span = self._cuts.span(epoch, batch)
        inputs, targets = (
            processes.share_rows(t, 1) for t in self._streams.steps_of(span)
        )  # [T, B]
        state = self.begun(None if batch == 0 else self._state)
        if self.own:
            done = min(1.0, (epoch * len(self) + batch) / self._growing)
            with torch.no_grad():
                logits, _ = model(inputs, state)
                drawn = torch.distributions.Categorical(logits=logits).sample()  # [T, B]
            inputs = with_own(inputs, drawn, self.own * done)
        output, state = model.hidden(inputs, state)
        self._state = detached(state)
        dropped = model.dropped(output)
        total = model.surprisal(dropped, targets)
        count = int((targets != IGNORED).sum())
        return Loss(total, count, count * self.penalty(output, dropped), self._cuts.share(span))

    def penalty(self, output: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor | float:
        """What is minimised beside the mean loss, of the layers' output and what dropout left."""
        return 0.0

    def begun(self, state: Any) -> Any:
        """The state a chunk begins with, of the one that the chunk before left."""
        return state

    def score(self) -> dict[str, float]:
        return self.predictor.score(self.held_out)

    def loss_figure(self, mean: float) -> float:
        return mean / math.log(2) / self._characters_per_token

    def items_in(self, count: float) -> float:
        return count * self._characters_per_token

    def about(self) -> str:
        return (
            f"{len(self.corpus.train):,} characters to learn from, "
            f"{len(self.corpus.held_out):,} held out; {len(self.vocabulary):,} tokens"
        )

    def notes(self) -> Sequence[str]:
        return self.corpus.notes

    def carried(self) -> dict[str, torch.Tensor]:
        state = self._state
        parts = () if state is None else (state,) if isinstance(state, torch.Tensor) else state
        return {str(k): processes.whole_rows(t, 1) for k, t in enumerate(parts)}

    def carry(self, tensors: dict[str, torch.Tensor]) -> None:
        parts = [processes.share_rows(tensors[str(k)], 1) for k in range(len(tensors))]
        self._state = None if not parts else parts[0] if len(parts) == 1 else tuple(parts)


def read_text(source: Source, level: str, most: int | None) -> tuple[Corpus, Vocabulary]:
    """The corpus, and the vocabulary of what is learned from, of at most `most` tokens."""
    corpus = read_corpus(source.path, source.held_out)
    if most is None and level == "word":
        most = _WORDS
    # Words seen once would be learned from one example; they teach the unknown token instead.
    rare = 2 if level == "word" else 1
    vocabulary = Vocabulary.build(corpus.train, level, most, min_count=rare)
    if len(vocabulary) == 1:
        raise ValueError(f"{corpus.name} has no {level} that it repeats: there is none to learn")
    return corpus, vocabulary


def mapped(function: Callable[[torch.Tensor], torch.Tensor], state: Any) -> Any:
    """`function` of every tensor of a state, which may be one tensor or nested tuples."""
    if isinstance(state, torch.Tensor):
        return function(state)
    if isinstance(state, tuple):
        parts = [mapped(function, s) for s in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    return state


def detached(state: Any) -> Any:
    """The state without the graph it came from."""
    return mapped(torch.Tensor.detach, state)
