"""The training loop of every model: step, evaluate, save; resumable to the bit.

Everything a step depends on is in the checkpoint: weights, optimizer, random state, what the
task carries from batch to batch, position in the data, the length of the schedule. A run resumed
on the same machine with the same number of threads therefore gives the numbers of an unbroken one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gatewise.models import processes
from gatewise.models.averaging import Average, stalled
from gatewise.models.checkpoint import CARRIED, Checkpoint, CheckpointError, save_checkpoint
from gatewise.models.saved import load_tensors, numbers_of
from gatewise.models.settings import Settings
from gatewise.models.task import Loss, Task

_MEASURED = range(5, 25)  # steps that are timed to turn minutes into steps; the first warm up
_EVALUATION_SHARE = 0.15  # of a time budget, at most, goes into evaluations
_SAVE_EVERY = 60.0  # seconds; saving changes no number
_NOT_FINITE = "the {} is not finite at step {}: lower the learning rate (now {:g}) and start again"


class TrainingError(RuntimeError):
    """Training cannot go on; the message is one line."""


@dataclass
class Progress:
    """Where a run stands; written to the checkpoint, handed out after every step."""

    step: int = 0
    total: int | None = None  # None while minutes have not become steps yet
    every: int = 1  # steps between evaluations
    batch: int = 0  # next batch of the pass over the data
    epoch: int = 0
    seconds: float = 0.0  # spent so far, over all resumed parts
    items: float = 0.0  # trained on so far
    loss_sum: float = 0.0  # since the last evaluation
    loss_count: int = 0
    best: float | None = None  # the task's metric
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    averaging: bool = False  # of the weights: begun
    finished: bool = False


class Trainer:
    """Trains the model of `task`, with checkpoints under `out`.

    Args:
        task: the model and its data.
        settings: how to train.
        out: the folder; nothing is written before `run`.
        origin: what the checkpoint says of where the data came from.

    >>> # for progress in Trainer(task, Settings(steps=100), "out").run():
    >>> #     print(progress.step, progress.best)
    """

    def __init__(
        self,
        task: Task[Any],
        settings: Settings,
        out: str | Path,
        origin: dict[str, Any] | None = None,
    ) -> None:
        if settings.batch % (sharing := processes.count()):
            raise ValueError(
                f"batch must be a multiple of the {sharing} processes, got {settings.batch}"
            )
        self.task, self.settings = task, settings
        self.out, self.origin = Path(out), origin or {}
        self._optimizer = settings.make_optimizer(task.model.parameters())
        self._average = Average(task.model)
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
        while not p.finished and not self._told_to_stop():
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
            [waited] = processes.largest([time.monotonic() - saved])
            if evaluated or p.finished or waited > _SAVE_EVERY:
                self._save(random)
                saved = time.monotonic()
            yield p
        if not p.finished:
            self._save(random)

    def stop(self) -> None:
        """Save and end `run` after the current step; safe in a signal handler."""
        self._stopping = True

    def _told_to_stop(self) -> bool:
        """Has any of the processes been told? They stop together."""
        return bool(processes.largest([self._stopping])[0])

    def _step(self) -> None:
        p, model = self.progress, self.task.model
        model.train()
        loss = self._loss()
        total, count = processes.summed((loss.total.item(), loss.count))
        norm = 0.0 if self.task.online else self._differentiate(loss, count)
        if not math.isfinite(total) or not math.isfinite(norm):
            raise TrainingError(_NOT_FINITE.format("loss", p.step, self.settings.learning_rate))
        if not self.task.online:
            self._optimizer.step()
        if p.averaging:
            self._average.add()
        p.loss_sum, p.loss_count = p.loss_sum + total, p.loss_count + int(count)
        p.items += self.task.items_in(count)
        p.step, p.batch = p.step + 1, p.batch + 1
        if p.batch == len(self.task):
            p.batch, p.epoch = 0, p.epoch + 1

    def _differentiate(self, loss: Loss, count: float) -> float:
        """The gradient of the mean over all processes, clipped; its norm before."""
        p, model = self.progress, self.task.model
        for group in self._optimizer.param_groups:
            group["lr"] = loss.share * self.settings.learning_rate_at(p.step, p.total, p.epoch)
        self._optimizer.zero_grad(set_to_none=True)
        ((loss.total + loss.penalty) / count).backward()
        processes.sum_gradients(model.parameters())
        return torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.clip).item()

    def _loss(self) -> Loss:
        p = self.progress
        try:
            return self.task.loss(p.epoch, p.batch)
        except processes.EmptyShare:
            return Loss(torch.zeros((), requires_grad=True), 0)

    @property
    def train_loss(self) -> float:
        """On the training data since the last evaluation, in the unit of the held-out figure."""
        p = self.progress
        return self.task.loss_figure(p.loss_sum / max(1, p.loss_count))

    def _planned(self) -> int | None:
        known = self.settings.minutes is None
        return max(1, round(self.settings.about_steps(len(self.task)))) if known else None

    def _plan(self, seconds_per_step: float) -> None:
        """Turn minutes into steps, with room for the evaluations but not for too many."""
        start = time.monotonic()
        self._evaluate()
        evaluation = time.monotonic() - start
        p, s = self.progress, self.settings
        left = max(0.0, 60 * (s.minutes or 0) - p.seconds - evaluation)
        evaluations = max(1, min(s.evaluations, int(_EVALUATION_SHARE * left / evaluation)))
        left -= evaluations * evaluation
        steps = p.step + max(1, int(left / seconds_per_step))
        agreed = processes.largest((steps, evaluations))  # each process has its own clock
        p.total = int(agreed[0])
        p.every = self._every(int(agreed[1]))

    def _every(self, evaluations: int) -> int:
        return max(1, (self.progress.total or 0) // evaluations)

    def _due(self) -> bool:
        p = self.progress
        if p.total is None:
            return False
        # The last one is at the last step; none just before it.
        return p.step == p.total or (p.step % p.every == 0 and p.total - p.step >= p.every / 2)

    def _evaluate(self) -> None:
        p, task = self.progress, self.task
        task.model.eval()
        with self._average.applied():
            score = task.score()
        if not math.isfinite(score[task.metric]):
            raise TrainingError(
                _NOT_FINITE.format("held-out figure", p.step, self.settings.learning_rate)
            )
        entry: dict[str, float] = {"step": p.step, "items": p.items, "seconds": p.seconds}
        entry[f"train_{task.loss_name}"] = self.train_loss
        self.history.append(entry | {f"held_out_{name}": v for name, v in score.items()})
        p.loss_sum, p.loss_count = 0.0, 0
        value = score[task.metric]
        better = p.best is None or (value > p.best if task.larger_is_better else value < p.best)
        if better or task.online:
            p.best, p.best_step, p.stale = value, p.step, 0
        else:
            p.stale += 1
        sign = -1.0 if task.larger_is_better else 1.0
        values = [sign * h[f"held_out_{task.metric}"] for h in self.history]
        if self.settings.average and not p.averaging:
            p.averaging = stalled(values, self.settings.average)

    # -- checkpoints ---------------------------------------------------------------------

    def _save(self, random: _RandomState) -> None:
        task = self.task
        with self._average.applied() as own:  # what is loaded to predict is the mean
            tensors = {f"model.{n}": t.clone() for n, t in numbers_of(task.model).items()}
        tensors |= {f"own.{n}": t for n, t in own.items()}
        tensors["averaged"] = torch.tensor(self._average.count)
        for name, parameter in task.model.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["random"] = random.state
        tensors |= {f"{CARRIED}{n}": t for n, t in task.carried().items()}
        record = {
            "kind": task.kind,
            "model": task.predictor.to_json(),
            "settings": asdict(self.settings),
            "origin": self.origin,
            "fingerprint": task.fingerprint,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),
            "progress": asdict(self.progress),
            "history": self.history,
        }
        p = self.progress  # until something was evaluated the newest weights are the best
        best = p.best is None or p.best_step == p.step or task.online
        if processes.number() == 0:
            save_checkpoint(self.out, self.progress.step, tensors, record, best)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from `checkpoint`; CheckpointError where it does not fit."""
        record, tensors = checkpoint.record, checkpoint.tensors
        if record.get("fingerprint") != self.task.fingerprint:
            raise CheckpointError(f"the data is not what {self.out} was trained on")
        try:
            self.progress = Progress(**record["progress"])
            self.history = list(record["history"])
            self._restored = tensors["random"]
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{checkpoint.path} is damaged: {error}") from None
        load_tensors(self.task.model, checkpoint)
        own = {n[len("own.") :]: t for n, t in tensors.items() if n.startswith("own.")}
        self._average.restore(own, int(tensors.get("averaged", torch.tensor(0))))
        state: Any = self._optimizer.state
        for name, parameter in self.task.model.named_parameters():
            prefix, suffix = "optimizer.", f".{name}"
            state[parameter] = {
                n[len(prefix) : -len(suffix)]: t.clone()
                for n, t in tensors.items()
                if n.startswith(prefix)
                and n.endswith(suffix)
                and "." not in n[len(prefix) : -len(suffix)]
            }
        try:
            self.task.carry(checkpoint.carried)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{checkpoint.path} is damaged: {error}") from None


class _RandomState:
    """torch's global random state, swapped in while a step computes."""

    def __init__(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()
        self._outside = self.state

    def __enter__(self) -> None:
        self._outside = torch.get_rng_state()
        torch.set_rng_state(self.state)

    def __exit__(self, *_: object) -> None:
        # Shares of unequal size draw unequally much; the next step begins alike in all processes.
        self.state = processes.first_says(torch.get_rng_state())
        torch.set_rng_state(self._outside)
