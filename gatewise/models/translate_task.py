"""The translator's task: pairs of sentences, their subwords, BLEU.

S, T = steps of source and target, B = sentences.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from gatewise.cells import get_cell
from gatewise.equations.cell import Cell
from gatewise.models.batches import Batches
from gatewise.models.bleu import bleu, bleu_scores, library, plot_bleu
from gatewise.models.formats import read_lines
from gatewise.models.parallel import Pairs, find_pairs, read_pairs
from gatewise.models.search import beam_search, check_beams, greedy
from gatewise.models.settings import Settings
from gatewise.models.subwords import Subwords
from gatewise.models.task import Loss, Predictor, Source, Task, named_cell
from gatewise.models.translator import BEGIN, END, Translator, TranslatorConfig

_BATCH = 64  # sentences translated at a time
_HELD_OUT = 20  # one pair of so many, where no file is held out
_SHOWN, _MAPS = 15, 3  # words of a sentence in a picture of the attention, at most; pictures
_GROWTH, _SPARE = 2.0, 10  # a translation has at most twice the source's subwords and ten more


@dataclass(frozen=True)
class TranslateOptions:
    """What translator to train, between which languages (the ends of the files' names)."""

    source: str = "de"
    target: str = "en"
    vocabulary: int = 4000  # subwords, of both languages together
    cell: str = "lstm"
    embedding_size: int = 256
    hidden_size: int = 256
    num_layers: int = 1
    dropout: float = 0.3
    attention: str = "multiplicative"
    own: float = 0.0  # scheduled sampling: probability, reached over the first half of training
    smoothing: float = 0.1  # of labels; the training loss that is shown has it in it
    beams: int = 5

    def __post_init__(self) -> None:
        for name in ("own", "smoothing"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be at least 0 and below 1, got {value!r}")
        if self.source == self.target:
            raise ValueError(f"source and target must be two languages, got {self.source!r} twice")
        check_beams(self.beams)
        if not isinstance(self.vocabulary, int) or self.vocabulary < 1:
            raise ValueError(f"vocabulary must be positive, got {self.vocabulary!r}")
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
        beams = check_beams(data.get("beams"))
        if not all(isinstance(n, str) for n in languages):
            raise ValueError("a translator must name two languages")
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
            longest = self._longest(lengths)
            with torch.no_grad():
                memory = self.model.encode(source, lengths)
            if beams == 1:
                said, _ = greedy(self.model, memory, longest)
            else:
                said = beam_search(self.model, memory, longest, beams)
            for k, ids in zip(chosen, said, strict=True):
                found[k] = self.subwords.decode(ids)
        return found

    def _longest(self, lengths: torch.Tensor) -> torch.Tensor:
        """The most subwords [B] of translations, by those of their sources with END: [B]."""
        return (_GROWTH * (lengths - 1)).long() + _SPARE

    def numbers(self, sentences: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """The subwords [S, B] and lengths [B] of sentences, each with its END."""
        rows = [torch.tensor([*self.subwords.encode(s), END]) for s in sentences]
        return pad_sequence(rows), torch.tensor([len(r) for r in rows])

    def evaluate(self, path: Path) -> dict[str, float]:
        """BLEU, also by words of the source, and nats per subword."""
        pairs = read_pairs(path, self.source, self.target)
        source, truth = [a for a, _ in pairs], [b for _, b in pairs]
        return bleu_scores(source, self.translate(source), truth) | {"nats": self.nats(pairs)}

    def picture(
        self, found: Mapping[str, Mapping[str, float]], data: Path, out: Path
    ) -> list[Path]:
        """BLEU by length, and where the model looks in some of the sentences."""
        by_length = out / "bleu.png"
        plot_bleu(found, by_length, f"{data.name}, {self.source} → {self.target}")
        pairs = read_pairs(data, self.source, self.target)
        sources = sorted((a for a, _ in pairs if len(a.split()) <= _SHOWN), key=len)
        chosen = sources[len(sources) // 4 :: max(1, len(sources) // 4)][:_MAPS]
        drawn = [self.draw_map(s, out / f"attention-{k}.png") for k, s in enumerate(chosen, 1)]
        return [by_length, *(p for p in drawn if p is not None)]

    def draw_map(self, sentence: str, path: Path) -> Path | None:
        """Where the model looks while it translates the sentence; None without attention."""
        from gatewise.models.plots import plot_attention

        source, lengths = self.numbers([sentence])
        with torch.no_grad():
            memory = self.model.encode(source, lengths)
        said, maps = greedy(self.model, memory, self._longest(lengths))
        if maps is None:
            return None
        read = self.subwords.pieces(source[:, 0].tolist())
        spoken = self.subwords.pieces([*said[0], END])[: len(maps)]
        plot_attention(maps[: len(spoken), 0], read, spoken, path, f"Attention ({self.title()})")
        return path

    def title(self) -> str:
        """Languages, cell, units, attention."""
        c = self.model.config
        return f"{self.source} → {self.target}, {c.cell}, {c.hidden_size} units, {c.attention}"

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
    defaults = {"batch": 64, "learning_rate": 2e-3, "epochs": 8.0, "evaluations": 8}
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
        # Of equal targets those of similar sources: attention's cost is the product of the two.
        lengths = [(len(b) << 20) + len(a) for a, b in self._train]
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
        library()  # missing, it is missed before training
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
        return self.predictor.title()

    def pictures(self, out: Path) -> list[Path]:
        """Where the best model looks while it translates a held-out sentence."""
        from gatewise.models.saved import load

        best = load(out, "best", self.predictor.model.encoder.cell).predictor
        assert isinstance(best, TranslatePredictor)
        words = [len(a.split()) for a, _ in self.held_out]
        longest = max(range(len(words)), key=lambda k: words[k] * (words[k] <= _SHOWN))
        drawn = best.draw_map(self.held_out[longest][0], out / "attention.png")
        return [] if drawn is None else [drawn]


def _begun(target: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full_like(target[:1], BEGIN), target])


def _fingerprint(*parts: Pairs) -> str:
    digest = hashlib.sha256()
    for part in parts:
        for a, b in part:
            digest.update(f"{a}\t{b}\n".encode())
        digest.update(b"\0")
    return digest.hexdigest()
