"""The translator's task: pairs of sentences, their subwords, BLEU.

S, T = steps of source and target, B = sentences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches
from gatewise.models.extras import require
from gatewise.models.formats import read_lines
from gatewise.models.parallel import Pairs, find_pairs, read_pairs
from gatewise.models.search import beam_search, greedy
from gatewise.models.settings import Settings
from gatewise.models.subwords import Subwords
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell
from gatewise.models.translator import BEGIN, END, Translator, TranslatorConfig

_BATCH = 64  # sentences translated at a time
_HELD_OUT = 20  # one pair of so many, where no file is held out
_LENGTHS = (10, 15, 20)  # words of the source: borders of the groups that BLEU is split by
_GROWTH, _SPARE = 2.0, 10  # a translation has at most twice the source's subwords and ten more


@dataclass(frozen=True)
class TranslateOptions:
    """What translator to train, between which languages (the ends of the files' names)."""

    source: str = "de"
    target: str = "en"
    vocabulary: int = 6000  # subwords, of both languages together
    cell: str = "lstm"
    embedding_size: int = 256
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.3
    attention: str = "multiplicative"
    own: float = 0.0  # scheduled sampling: probability, reached over the first half of training
    smoothing: float = 0.1
    beams: int = 5

    def __post_init__(self) -> None:
        for name in ("own", "smoothing"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")
        for name in ("vocabulary", "beams"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be positive, got {value!r}")
        self.config(self.vocabulary)

    def config(self, vocabulary: int) -> TranslatorConfig:
        own = {f.name for f in fields(TranslatorConfig)} - {"vocabulary_size"}
        return TranslatorConfig(vocabulary, **{n: getattr(self, n) for n in own})


class TranslatePredictor(Predictor[Translator]):
    """A translator with its subwords and languages."""

    def __init__(
        self, model: Translator, subwords: Subwords, source: str, target: str, beams: int
    ) -> None:
        self.model, self.subwords = model, subwords
        self.source, self.target, self.beams = source, target, beams

    def to_json(self) -> dict[str, Any]:
        return {
            "config": self.model.config.to_json(),
            "subwords": self.subwords.to_json(),
            "source": self.source,
            "target": self.target,
            "beams": self.beams,
        }

    @classmethod
    def from_json(
        cls, data: Any, cell: Cell | None = None, executor: str = "auto"
    ) -> TranslatePredictor:
        if not isinstance(data, dict):
            raise ValueError("a translator must be an object")
        config = TranslatorConfig.from_json(data.get("config"))
        subwords = Subwords.from_json(data.get("subwords"))
        if len(subwords) != config.vocabulary_size:
            raise ValueError("the subwords have another size than the model")
        languages = [data.get("source"), data.get("target")]
        beams = data.get("beams")
        if not all(isinstance(n, str) for n in languages) or not isinstance(beams, int):
            raise ValueError("a translator must name two languages and a number of beams")
        model = Translator(config, cell=named_cell(config.cell, cell), executor=executor)
        return cls(model, subwords, str(languages[0]), str(languages[1]), beams)

    def predict(self, path: Path) -> Iterator[dict[str, Any]]:
        """Each line of a text file with its translation."""
        lines = read_lines(path)
        for start in range(0, len(lines), _BATCH):
            some = lines[start : start + _BATCH]
            said = iter(self.translate([s for s in some if s.strip()]))
            for line in some:
                yield {"source": line, "translation": next(said) if line.strip() else ""}

    def render(self, row: dict[str, Any]) -> str:
        return row["translation"]

    def translate(self, sentences: Sequence[str], beams: int | None = None) -> list[str]:
        """The sentences, none of them empty, in the other language; one beam is greedy."""
        beams = self.beams if beams is None else beams
        order = sorted(range(len(sentences)), key=lambda k: len(sentences[k]))
        found = [""] * len(sentences)
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            source, lengths = self.numbers([sentences[k] for k in chosen])
            longest = int(_GROWTH * len(source)) + _SPARE
            with torch.no_grad():
                memory = self.model.encode(source, lengths)
            if beams == 1:
                said, _ = greedy(self.model, memory, longest)
            else:
                said = beam_search(self.model, memory, longest, beams)
            for k, ids in zip(chosen, said, strict=True):
                found[k] = self.subwords.decode(ids)
        return found

    def numbers(self, sentences: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The subwords [S, B] and lengths [B] of sentences, each with its END."""
        rows = [torch.tensor([*self.subwords.encode(s), END]) for s in sentences]
        return pad_sequence(rows), torch.tensor([len(r) for r in rows])

    def evaluate(self, path: Path) -> dict[str, float]:
        """BLEU, also by words of the source, and nats per subword."""
        pairs = read_pairs(path, self.source, self.target)
        said = self.translate([a for a, _ in pairs])
        scores = {"bleu": bleu(said, [b for _, b in pairs]), "nats": self.nats(pairs)}
        borders = (0, *_LENGTHS, 1 << 30)
        for low, high in pairwise(borders):
            group = [k for k, (a, _) in enumerate(pairs) if low < len(a.split()) <= high]
            if group:
                name = f"over_{low}" if high == borders[-1] else f"{low + 1}_to_{high}"
                truth = [pairs[k][1] for k in group]
                scores[f"bleu_{name}_words"] = bleu([said[k] for k in group], truth)
        return scores

    @torch.no_grad()
    def nats(self, pairs: Pairs) -> float:
        """-log P of the true translation, per subword."""
        total, count = 0.0, 0
        for start in range(0, len(pairs), _BATCH):
            some = pairs[start : start + _BATCH]
            source, lengths = self.numbers([a for a, _ in some])
            target, sizes = self.numbers([b for _, b in some])
            total += self.model.loss(source, lengths, _begun(target)).item()
            count += int(sizes.sum())
        return total / count


class TranslateTask(Task[TranslatePredictor]):
    """Say a sentence in another language."""

    kind = "translate"
    summary = "sentences into another language, from parallel files (x.de and x.en) or .tsv"
    Options = TranslateOptions
    Predictor = TranslatePredictor
    defaults = {"batch": 64, "learning_rate": 2e-3, "epochs": 10.0, "evaluations": 10}
    items = "subwords"
    loss_name = "nats"
    metric = "bleu"
    larger_is_better = True

    def __init__(
        self,
        predictor: TranslatePredictor,
        name: str,
        train: Pairs,
        held_out: Pairs,
        options: TranslateOptions,
        settings: Settings,
    ) -> None:
        self.predictor, self.name, self.options = predictor, name, options
        self.held_out, self.fingerprint = held_out, _fingerprint(train, held_out)
        encode = predictor.subwords.encode
        self._train = [(encode(a), encode(b)) for a, b in train]
        lengths = [len(a) + len(b) for a, b in self._train]
        self._batches = Batches(lengths, settings.batch, settings.seed)
        self._growing = (
            settings.about_steps(len(self._batches)) / 2
        )  # to scheduled sampling's height

    @classmethod
    def begin(
        cls,
        source: Source,
        options: TranslateOptions,
        settings: Settings,
        cell: Cell | None = None,
        executor: str = "auto",
    ) -> TranslateTask:
        if source.path is None:
            raise ValueError("a translator needs DATA: a folder, or a file such as train.de")
        languages = options.source, options.target
        path, found = find_pairs(source.path, *languages)
        held_path = source.held_out or found
        train = read_pairs(path, *languages)
        if held_path is not None:
            held_out = read_pairs(held_path, *languages)
        else:
            held_out = train[::_HELD_OUT]
            train = [p for k, p in enumerate(train) if k % _HELD_OUT]
        if not train:
            raise ValueError(f"{path} has too few pairs of sentences to learn from")
        subwords = Subwords.build((s for pair in train for s in pair), options.vocabulary)
        model = Translator(
            options.config(len(subwords)),
            cell=get_cell(options.cell) if cell is None else cell,
            executor=executor,
        )
        predictor = TranslatePredictor(model, subwords, *languages, options.beams)
        return cls(predictor, path.name, train, held_out, options, settings)

    def __len__(self) -> int:
        return len(self._batches)

    def loss(self, epoch: int, batch: int) -> Loss:
        some = [self._train[k] for k in self._batches.examples(epoch, batch)]
        source = [torch.tensor([*a, END]) for a, _ in some]
        target = [torch.tensor([BEGIN, *b, END]) for _, b in some]
        done = (epoch * len(self) + batch) / self._growing
        total = self.predictor.model.loss(
            pad_sequence(source),
            torch.tensor([len(r) for r in source]),
            pad_sequence(target),
            self.options.own * min(1.0, done),
            self.options.smoothing,
        )
        return Loss(total, sum(len(r) - 1 for r in target))

    def score(self) -> dict[str, float]:
        """BLEU of greedy translations, quicker than beams, and nats of the true ones."""
        said = self.predictor.translate([a for a, _ in self.held_out], beams=1)
        truth = [b for _, b in self.held_out]
        return {"nats": self.predictor.nats(self.held_out), "bleu": bleu(said, truth)}

    def about(self) -> str:
        return (
            f"{len(self._train):,} pairs to learn from, {len(self.held_out):,} held out; "
            f"{len(self.predictor.subwords):,} subwords"
        )

    def title(self) -> str:
        config = self.predictor.model.config
        return f"{self.name} ({config.cell}, {config.hidden_size} units, {config.attention})"

    def pictures(self, out: Path) -> list[Path]:
        """Where the best model looks while it translates a held-out sentence."""
        from gatewise.models.plots import plot_attention
        from gatewise.models.saved import load

        best = load(out, "best", self.predictor.model.encoder.cell).predictor
        assert isinstance(best, TranslatePredictor)
        if best.model.attention is None:
            return []
        longest = max(self.held_out, key=lambda p: len(p[0].split()) * (len(p[0].split()) <= 15))
        source, lengths = best.numbers([longest[0]])
        with torch.no_grad():
            memory = best.model.encode(source, lengths)
        said, maps = greedy(best.model, memory, 2 * len(source) + _SPARE)
        assert maps is not None
        pieces, path = best.subwords.pieces, out / "attention.png"
        read, spoken = pieces(source[:, 0].tolist()), pieces([*said[0], END])
        shown = maps[: len(spoken), 0]
        plot_attention(shown, read, spoken[: len(shown)], path, f"Attention ({self.title()})")
        return [path]


def bleu(said: Sequence[str], truth: Sequence[str]) -> float:
    """BLEU of whole sentences with case and punctuation, as sacrebleu counts it, 0 to 100."""
    library = require("sacrebleu", "nlp", "BLEU")
    return float(library.corpus_bleu(list(said), [list(truth)]).score)


def _begun(target: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full_like(target[:1], BEGIN), target])


def _fingerprint(*parts: Pairs) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for a, b in part:
            digest.update(f"{a}\t{b}\n".encode())
        digest.update(b"\0")
    return digest.hexdigest()
