"""Train a language model: truncated BPTT with carried state, one loop, resumable to the bit.

T = steps of a chunk, B = parallel streams, V = vocabulary.

Everything a step depends on is in the checkpoint: weights, optimizer, random state, carried
recurrent state, position in the text, the length of the schedule. A run resumed on the same
machine with the same number of threads therefore gives the numbers of an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from gatewise.cells import REGISTRY
from gatewise.equations.cell import Cell
from gatewise.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint
from gatewise.models.corpus import IGNORED, Corpus, Streams
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.vocabulary import Vocabulary

_MEASURED = range(5, 25)  # steps that are timed to turn minutes into steps; the first warm up
_EVALUATION_BATCH = 64
_EVALUATION_STREAM = 1000  # tokens at least: each stream begins with an empty state
_EVALUATION_SHARE = 0.15  # of a time budget, at most, goes into evaluations
_SAVE_EVERY = 60.0  # seconds; saving changes no number
_FLOOR = 0.02  # of the peak learning rate, where the cosine ends


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one line."""


@dataclass(frozen=True)
class Settings:
    """How to train. Exactly one of `steps`, `epochs` and `minutes` says how long.

    Minutes become steps once, by timing the first ones, so that the schedule can be resumed.
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    batch: int = 16
    chunk: int = 64
    learning_rate: float = 5e-3
    warmup: int = 100  # steps, at most a tenth of all
    weight_decay: float = 0.01
    clip: float = 1.0  # largest norm of the gradient
    restart: float = 0.05  # probability that a stream begins a chunk with an empty state
    evaluations: int = 10  # over the whole run
    patience: int = 5  # evaluations without a better held-out figure before an early stop
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [n for n in ("steps", "epochs", "minutes") if getattr(self, n) is not None]
        if len(lengths) != 1:
            raise ValueError(
                f"give one of steps, epochs and minutes, got {' and '.join(lengths) or 'none'}"
            )
        for name in (
            lengths[0],
            "batch",
            "chunk",
            "learning_rate",
            "clip",
            "evaluations",
            "patience",
        ):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value!r}")
        if not isinstance(self.restart, int | float) or not 0 <= self.restart <= 1:
            raise ValueError(f"restart must be between 0 and 1, got {self.restart!r}")
        if isinstance(self.seed, int) and self.seed >= 1 << 63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
        for name in ("warmup", "weight_decay", "seed"):
            if not isinstance(getattr(self, name), int | float) or getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")

    def learning_rate_at(self, step: int, total: int | None) -> float:
        """The rate of step 0, 1, …: linear warm-up, then a cosine down to 2 % of the peak."""
        warmup = self.warmup if total is None else min(self.warmup, total // 10)
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        if total is None:
            return self.learning_rate
        done = min(1.0, (step - warmup) / max(1, total - warmup))
        cosine = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (_FLOOR + (1 - _FLOOR) * cosine)


@dataclass(frozen=True)
class Score:
    """How well a text is predicted."""

    bits_per_character: float
    perplexity: float  # per token, the unknown token being one like any other
    characters: int


@dataclass
class Progress:
    """Where a run stands; written to the checkpoint, handed out after every step."""

    step: int = 0
    total: int | None = None  # None while minutes have not become steps yet
    every: int = 1  # steps between evaluations
    chunk: int = 0  # next chunk of the pass over the text
    epoch: int = 0
    seconds: float = 0.0  # spent so far, over all resumed parts
    characters: float = 0.0  # trained on so far
    loss_sum: float = 0.0  # nats, since the last evaluation
    loss_count: int = 0
    best: float | None = None  # bits per character
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    finished: bool = False


class Trainer:
    """Trains `model` on `corpus`, with checkpoints under `out`.

    >>> # for progress in Trainer(model, vocabulary, corpus, Settings(steps=100), "out").run():
    >>> #     print(progress.step, progress.best)
    """

    def __init__(
        self,
        model: LanguageModel,
        vocabulary: Vocabulary,
        corpus: Corpus,
        settings: Settings,
        out: str | Path,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.vocabulary, self.settings = model, vocabulary, settings
        self.out, self.fingerprint, self.source = Path(out), corpus.fingerprint, source or {}
        train = vocabulary.measure(corpus.train)
        self._held_out = vocabulary.measure(corpus.held_out)
        if len(train.ids) < 2 or len(self._held_out.ids) < 2:
            raise ValueError(f"{corpus.name} has too few tokens to learn from")
        self._characters_per_token = train.characters / (len(train.ids) - 1)
        self._streams = Streams(train.ids, settings.batch, settings.chunk)
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            settings.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self._state: Any = None  # recurrent, carried from chunk to chunk
        self._stopping = False
        self._restored: torch.Tensor | None = None  # random state of a checkpoint
        self.progress = Progress(total=self._planned())
        self.progress.every = self._every(settings.evaluations)
        self.history: list[dict[str, float]] = []  # one entry per evaluation

    # -- the loop ------------------------------------------------------------------------

    def run(self) -> Iterator[Progress]:
        """Train to the end (or to `stop`), yielding after every step.

        The global random state is the run's own while a step computes, so that a seed means
        the same run whatever else draws numbers.
        """
        p, random = self.progress, _RandomState(self.settings.seed)
        if self._restored is not None:
            random.state = self._restored
        else:
            self._save(random)  # a run killed at any moment has something to resume
        saved, times = time.monotonic(), list[float]()
        while not p.finished and not self._stopping:
            start = time.monotonic()
            with random:
                self._step()
            p.seconds += time.monotonic() - start
            times.append(time.monotonic() - start)
            start = time.monotonic()
            if p.total is None and len(times) == _MEASURED.stop:
                self._plan(median(times[_MEASURED.start :]))
            elif self._due():
                self._evaluate()
            p.finished = p.total is not None and (
                p.step >= p.total or p.stale >= self.settings.patience
            )
            p.seconds += time.monotonic() - start
            evaluated = bool(self.history) and self.history[-1]["step"] == p.step
            if evaluated or p.finished or time.monotonic() - saved > _SAVE_EVERY:
                self._save(random)
                saved = time.monotonic()
            yield p
        if self._stopping:
            self._save(random)

    def stop(self) -> None:
        """Save and end `run` after the current step; safe in a signal handler."""
        self._stopping = True

    def _step(self) -> None:
        p, model = self.progress, self.model
        model.train()
        inputs, targets = self._streams.chunk(p.chunk)  # [T, B]
        logits, state = model(inputs, self._restarted(self._state))
        loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(p.step, p.total)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip)
        value = loss.item()
        if not math.isfinite(value) or not math.isfinite(norm.item()):
            raise TrainingError(
                f"the loss is not finite at step {p.step}: lower the learning rate "
                f"(now {self.settings.learning_rate:g}) and start again"
            )
        self._optimizer.step()
        tokens = int((targets != IGNORED).sum())
        p.loss_sum, p.loss_count = p.loss_sum + value * tokens, p.loss_count + tokens
        p.characters += tokens * self._characters_per_token
        p.step, p.chunk = p.step + 1, p.chunk + 1
        self._state = _map(torch.Tensor.detach, state)
        if p.chunk == len(self._streams):
            p.chunk, p.epoch, self._state = 0, p.epoch + 1, None

    def _restarted(self, state: Any) -> Any:
        """The carried state, emptied in a few streams.

        A state that is only ever carried drifts to where no text begins; a model that has
        never met the empty one predicts badly after it.
        """
        if state is None or not self.settings.restart:
            return state
        kept = torch.rand(self._streams.batch) >= self.settings.restart  # [B]
        return _map(lambda s: s * kept.to(s.dtype)[:, None], state)  # [L, B, H]

    @property
    def bits_per_character(self) -> float:
        """Of the training text, since the last evaluation."""
        p = self.progress
        nats = p.loss_sum / max(1, p.loss_count)
        return nats / math.log(2) / self._characters_per_token

    def _planned(self) -> int | None:
        s = self.settings
        if s.minutes is not None:
            return None
        return s.steps if s.epochs is None else max(1, round(s.epochs * len(self._streams)))

    def _plan(self, seconds_per_step: float) -> None:
        """Turn minutes into steps, with room for the evaluations but not for too many."""
        start = time.monotonic()
        self._evaluate()
        evaluation = time.monotonic() - start
        p, s = self.progress, self.settings
        left = max(0.0, 60 * (s.minutes or 0) - p.seconds - evaluation)
        evaluations = max(1, min(s.evaluations, int(_EVALUATION_SHARE * left / evaluation)))
        left -= evaluations * evaluation
        p.total = p.step + max(1, int(left / seconds_per_step))
        p.every = self._every(evaluations)

    def _every(self, evaluations: int) -> int:
        return max(1, (self.progress.total or 0) // evaluations)

    def _due(self) -> bool:
        p = self.progress
        if p.total is None:
            return False
        # The last one is at the last step; none just before it.
        return p.step == p.total or (p.step % p.every == 0 and p.total - p.step >= p.every / 2)

    # -- held-out text -------------------------------------------------------------------

    def score(self) -> Score:
        """How well the model predicts the held-out text, each token once, in parallel streams."""
        held = self._held_out
        batch = max(1, min(_EVALUATION_BATCH, len(held.ids) // _EVALUATION_STREAM))
        streams = Streams(held.ids, batch, self.settings.chunk)
        self.model.eval()
        nats, state = 0.0, None
        with torch.no_grad():
            for inputs, targets in streams.chunks():
                logits, state = self.model(inputs, state)
                nats += cross_entropy(
                    logits.flatten(0, 1),
                    targets.flatten(),
                    ignore_index=IGNORED,
                    reduction="sum",
                ).item()
        bits = (nats / math.log(2) + held.spelled_bits) / held.characters
        return Score(bits, math.exp(min(700.0, nats / (len(held.ids) - 1))), held.characters)

    def _evaluate(self) -> None:
        p, score = self.progress, self.score()
        self.history.append(
            {
                "step": p.step,
                "characters": p.characters,
                "seconds": p.seconds,
                "train_bits_per_character": self.bits_per_character,
                "held_out_bits_per_character": score.bits_per_character,
                "held_out_perplexity": score.perplexity,
            }
        )
        p.loss_sum, p.loss_count = 0.0, 0
        if p.best is None or score.bits_per_character < p.best:
            p.best, p.best_step, p.stale = score.bits_per_character, p.step, 0
        else:
            p.stale += 1

    # -- checkpoints ---------------------------------------------------------------------

    def _save(self, random: _RandomState) -> None:
        tensors: dict[str, torch.Tensor] = {
            f"model.{n}": t for n, t in self.model.named_parameters()
        }
        for name, parameter in self.model.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["random"] = random.state
        parts = [] if self._state is None else list(_parts(self._state))
        tensors |= {f"carried.{k}": t for k, t in enumerate(parts)}
        record = {
            "kind": "language-model",
            "model": self.model.config.to_json(),
            "vocabulary": self.vocabulary.to_json(),
            "settings": asdict(self.settings),
            "source": self.source,
            "fingerprint": self.fingerprint,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "progress": asdict(self.progress),
            "history": self.history,
        }
        best = self.progress.best_step == self.progress.step
        save_checkpoint(self.out, self.progress.step, tensors, record, best)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`; CheckpointError where it does not fit."""
        record, tensors = checkpoint.record, checkpoint.tensors
        if record.get("fingerprint") != self.fingerprint:
            raise CheckpointError(f"the text is not the one {self.out} was trained on")
        try:
            self.progress = Progress(**record["progress"])
            self.history = list(record["history"])
            self._restored = tensors["random"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{checkpoint.path} is damaged: {error}") from None
        _load_parameters(self.model, checkpoint)
        state: Any = self._optimizer.state
        for name, parameter in self.model.named_parameters():
            prefix, suffix = "optimizer.", f".{name}"
            state[parameter] = {
                n[len(prefix) : -len(suffix)]: t.clone()
                for n, t in tensors.items()
                if n.startswith(prefix)
                and n.endswith(suffix)
                and "." not in n[len(prefix) : -len(suffix)]
            }
        parts = [tensors[n] for n in sorted(tensors) if n.startswith("carried.")]
        self._state = None if not parts else parts[0] if len(parts) == 1 else tuple(parts)


def load_settings(record: dict[str, Any]) -> Settings:
    """The settings in a checkpoint's record; CheckpointError where they are damaged."""
    data = record.get("settings")
    try:
        if not isinstance(data, dict) or set(data) != {f.name for f in fields(Settings)}:
            raise ValueError("the settings are incomplete")
        return Settings(**data)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint is damaged: {error}") from None


def load_language_model(
    directory: str | Path,
    which: str = "best",
    cell: Cell | None = None,
    executor: str = "auto",
) -> tuple[LanguageModel, Vocabulary, Checkpoint]:
    """A trained model with its vocabulary, in evaluation mode.

    Raises CheckpointError where there is none, it is damaged, or it was trained with a cell
    from a file and `cell` is not given: a checkpoint runs no code.
    """
    checkpoint = load_checkpoint(directory, which)
    record, path = checkpoint.record, checkpoint.path
    try:
        config = LanguageModelConfig.from_json(record.get("model"))
        vocabulary = Vocabulary.from_json(record.get("vocabulary"))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    if config.cell not in REGISTRY and cell is None:
        raise CheckpointError(
            f"{directory} was trained with the cell {config.cell}; checkpoints run no code, "
            "so name it again with --cell FILE.py:CLASS"
        )
    if cell is not None and not _is_cell(cell, config.cell):
        raise CheckpointError(
            f"{directory} was trained with the cell {config.cell}, not with the one given"
        )
    if len(vocabulary) != config.vocabulary_size:
        raise CheckpointError(f"{path} is damaged: the vocabulary has another size than the model")
    # A stack has at least this many numbers: checked before any memory is asked for.
    least = config.hidden_size * (
        config.embedding_size + (config.num_layers - 1) * config.hidden_size
    )
    if least > sum(t.numel() for t in checkpoint.tensors.values()):
        raise CheckpointError(f"{path} is damaged: the model is larger than its tensors")
    model = LanguageModel(config, cell=cell, executor=executor)
    _load_parameters(model, checkpoint)
    return model.eval(), vocabulary, checkpoint


def _is_cell(cell: Cell, name: str) -> bool:
    """Is `cell` the one that `name` stands for? A file may have moved; its class is asked for.

    Cells with the same shapes of weights compute different things from them.
    """
    if name in REGISTRY:
        return repr(cell) == repr(REGISTRY[name].make())
    return type(cell).__name__ == name.rsplit(":", 1)[-1]


def _load_parameters(model: LanguageModel, checkpoint: Checkpoint) -> None:
    wanted = dict(model.named_parameters())
    found = {n[len("model.") :]: t for n, t in checkpoint.tensors.items() if n.startswith("model.")}
    if wanted.keys() != found.keys():
        odd = sorted(wanted.keys() ^ found.keys())[0]
        raise CheckpointError(f"{checkpoint.path} does not fit the model: {odd}")
    with torch.no_grad():
        for name, parameter in wanted.items():
            if found[name].shape != parameter.shape or found[name].dtype != parameter.dtype:
                raise CheckpointError(
                    f"{checkpoint.path} does not fit the model: {name} is "
                    f"{tuple(found[name].shape)}, expected {tuple(parameter.shape)}"
                )
            parameter.copy_(found[name])


class _RandomState:
    """torch's global random state, swapped in while a step computes."""

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()
        self._outside = self.state

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self.state)

    def __exit__(self, *_: object) -> None:
        self.state = torch.get_rng_state()
        torch.set_rng_state(self._outside)


def _parts(state: Any) -> tuple[torch.Tensor, ...]:
    return (state,) if isinstance(state, torch.Tensor) else tuple(state)


def _map(function: Callable[[torch.Tensor], torch.Tensor], state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return function(state)
    return tuple(function(s) for s in state)
