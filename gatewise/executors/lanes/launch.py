"""Small networks in lanes: their weights, running given sequences, training on a task.

Shapes: N networks, G groups of L lanes (N <= G·L), T steps, B sequences, I inputs, O outputs.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from gatewise.executors.counter import checked_seed
from gatewise.executors.cpu import toolchain
from gatewise.executors.lanes.generate import Network, source
from gatewise.executors.lanes.task import Buffers, Sequences, Task, doubles

MEASURES = ("squared", "absolute")
_DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Criterion:
    """When a network has learnt its task; judged after each sequence over the last `window`.

    A sequence is wrong if any judged |t_k - y_k| exceeds `tolerance` (of a ranked network: if the
    outputs of a judged step are in the wrong order). The criterion is met when
    at most `most_wrong` are wrong and the mean error (squared or absolute, over judged steps and
    outputs) is below `error`.
    """

    tolerance: float
    window: int = 2000
    most_wrong: int = 0
    error: float = float("inf")
    measure: str = "squared"

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be positive, got {self.window}")
        if self.most_wrong < 0:
            raise ValueError(f"most_wrong must be zero or positive, got {self.most_wrong}")
        if self.measure not in MEASURES:
            raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {self.measure!r}")


@dataclass(frozen=True)
class Outcome:
    """What given sequences came to, by network and sequence [N, B]."""

    outputs: torch.Tensor  # [N, T, B, O], zero at steps that do not exist
    worst: torch.Tensor  # largest judged |t - y|; NaN of ranked networks, which need a task
    squared: torch.Tensor  # sum of judged (t - y)²
    absolute: torch.Tensor  # sum of judged |t - y|


class Lanes:
    """N independent networks of one kind, each with its own weights, data and learning rate.

    Args:
        network: what each of them is.
        count: N.
        rate: α of every network, or N of them.
        task: what to train on; without one the networks run given sequences only.
        criterion: when to stop training a network.
        seed: of the task's random numbers; network k draws from stream `stream + k`.
        stream: see seed; each network's own is in `streams`.
        dtype: torch.float32 or torch.float64.

    Every weight starts at zero: `load`, `draw`.

    Raises:
        TypeError, ValueError: a size or seed out of range, or a task of another shape than the
            network's.
        NoCompilerError: there is no C compiler.
    """

    def __init__(
        self,
        network: Network,
        count: int,
        rate: float | Sequence[float],
        task: Task | None = None,
        criterion: Criterion | None = None,
        seed: int = 0,
        stream: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be positive, got {count}")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be float32 or float64, got {dtype}")
        if task is not None:
            _check_task(network, task)
        self.network, self.count, self.task = network, count, task
        self.criterion = criterion or Criterion(tolerance=0.0)
        self.seed, self.dtype = checked_seed(seed), dtype
        text = source(network, dtype, task.code if task else "")
        self._lib = toolchain.library(text, lambda: text)
        for name in ("gw_lanes", "gw_steps", "gw_train", "gw_test"):
            if hasattr(self._lib, name):
                getattr(self._lib, name).restype = ctypes.c_int64
        self.lanes = int(self._lib.gw_lanes())
        self.groups = -(-count // self.lanes)
        self._allocate()
        rates = [rate] * count if isinstance(rate, int | float) else list(rate)
        if len(rates) != count:
            raise ValueError(f"rate must be one number or {count}, got {len(rates)}")
        self.streams = torch.arange(self.groups * self.lanes, dtype=torch.int32) + stream
        self.rates = torch.zeros(self.groups * self.lanes, dtype=dtype)
        self.rates[:count] = torch.tensor(rates, dtype=dtype)

    def _allocate(self) -> None:
        n, t, lanes = self.network, self.network.trace, self.lanes
        rows, sources = sum(n.rows(a.gate) for a in t.accumulators), n.inputs + n.fed_back + 1
        head = n.inputs * n.head_inputs + n.units + 1
        traced = n.units if n.exact else len(t.accumulators)

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(*shape, lanes, dtype=self.dtype)

        # Per group: what is kept.
        self._weight = zeros(self.groups, sources, rows)
        self._param = zeros(self.groups, max(1, len(t.parameters)), n.units)
        self._head = zeros(self.groups, head, n.outputs)
        self._tape = zeros(0, 0)
        # Scratch, shared by the groups, which run one after another.
        self._scratch = [
            zeros(n.units * traced, sources),
            zeros(n.units * max(1, len(t.parameters))),
            zeros(sources, rows),
            zeros(max(1, len(t.parameters)), n.units),
            zeros(head, n.outputs),
        ]
        total = self.groups * lanes
        self.number = torch.zeros(total, dtype=torch.int64)  # sequences drawn so far
        self.met = torch.zeros(total, dtype=torch.int64)  # sequences until success; 0: not yet
        self.met[self.count :] = 1  # lanes without a network never learn
        window = self.criterion.window
        self._wrong = torch.zeros(self.groups, window, lanes, dtype=torch.uint8)
        self._error = torch.zeros(self.groups, window, lanes, dtype=self.dtype)
        self._error_sum = torch.zeros(total, dtype=torch.float64)
        self._wrong_count = torch.zeros(total, dtype=torch.int64)
        if self.task is not None:
            self._task_numbers = doubles(self.task.parameters)
            most = int(self._lib.gw_steps(self._task_numbers))
            self._buffers = Buffers(self.task, most, lanes, self.dtype)
            self._make_room(most)

    def _make_room(self, steps: int) -> None:
        """For what the sweep back through so many steps reads: `record` in lanes.c."""
        n, t = self.network, self.network.trace
        if n.whole and len(self._tape) < steps:
            each = n.inputs + n.fed_back + 1
            each += n.units * (2 * len(t.states) + len(n.local.saved) + 2)
            self._tape = torch.zeros(steps, each, self.lanes, dtype=self.dtype)

    # -- weights -------------------------------------------------------------------------

    def parameters(self) -> dict[str, torch.Tensor]:
        """A copy of every network's parameters: name -> [N, *network.shapes()[name]]."""
        return {n: by_network[: self.count].clone() for n, by_network in self._views().items()}

    def load(self, parameters: Mapping[str, torch.Tensor]) -> None:
        """Set parameters by name: [N, *shape], or [*shape] for all networks the same."""
        shapes = self.network.shapes()
        for name, given in parameters.items():
            if name not in shapes:
                raise ValueError(f"parameters must be of {', '.join(shapes)}, got {name!r}")
            if tuple(given.shape) not in ((self.count, *shapes[name]), shapes[name]):
                raise ValueError(
                    f"{name} must have shape {(self.count, *shapes[name])} or {shapes[name]}, "
                    f"got {tuple(given.shape)}"
                )
        rows = self._index()
        for name, given in parameters.items():
            wide = given.to(self.dtype).expand(self.count, *shapes[name])
            padded = torch.zeros(self.groups * self.lanes, *shapes[name], dtype=self.dtype)
            padded[: self.count] = wide
            held, at = rows[name]
            flat = held.flatten(1, -2)  # [G, ..., L]: a view
            value = padded.view(self.groups, self.lanes, -1).transpose(1, 2)
            flat[:, at.flatten()] = value

    def restart(self, k: int, stream: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Make network k a new one: with these parameters, at the first sequence of a stream.

        Raises:
            ValueError: as `replace`.
        """
        self.replace(k, parameters)
        g, lane = divmod(k, self.lanes)
        self.streams[k] = stream
        for counted in (self.number, self.met, self._error_sum, self._wrong_count):
            counted[k] = 0
        self._wrong[g, :, lane] = 0
        self._error[g, :, lane] = 0

    def replace(self, k: int, parameters: Mapping[str, torch.Tensor]) -> None:
        """Give network k other parameters, all of them, in the middle of its training.

        Raises:
            ValueError: k is no network, or a parameter that is missing or has another shape.
        """
        if not 0 <= k < self.count:
            raise ValueError(f"k must be in 0…{self.count - 1}, got {k}")
        for name, shape in self.network.shapes().items():
            if name not in parameters or tuple(parameters[name].shape) != shape:
                raise ValueError(f"parameters must have {name} of shape {shape}")
        g, lane = divmod(k, self.lanes)
        for name, (held, at) in self._index().items():
            held.flatten(1, -2)[g, at.flatten(), lane] = parameters[name].flatten().to(self.dtype)

    def retire(self, k: int) -> None:
        """Network k learns no more, whatever its criterion says."""
        self.met[k] = self.met[k].clamp(min=1)

    def _views(self) -> dict[str, torch.Tensor]:
        shapes = self.network.shapes()
        found = {}
        for name, (held, at) in self._index().items():
            value = held.flatten(1, -2)[:, at.flatten()]  # [G, n, L]
            found[name] = value.transpose(1, 2).reshape(-1, *shapes[name])
        return found

    def _index(self) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Parameter -> the buffer it lies in, and where: indices in its own shape."""
        n, t = self.network, self.network.trace
        inputs, fed, units = n.inputs, n.fed_back, n.units
        table = torch.arange(self._weight[0, ..., 0].numel()).view(self._weight.shape[1:3]).T
        rows_of, start = [], 0
        for a, biased in zip(t.accumulators, n.biased, strict=True):
            rows_of.append((a, biased, range(start, start + n.rows(a.gate))))
            start += n.rows(a.gate)

        def rows(wanted: Any) -> list[int]:
            return [r for a, biased, span in rows_of if wanted(a, biased) for r in span]

        found = {
            "weight_ih": (self._weight, table[rows(lambda a, _: a.from_input), :inputs]),
            "weight_hh": (
                self._weight,
                table[rows(lambda a, _: a.from_feedback), inputs : inputs + fed],
            ),
            "bias": (self._weight, table[rows(lambda _, biased: biased), -1]),
        }
        for k, p in enumerate(t.parameters):
            found[p] = (self._param, torch.arange(units) + k * units)
        table = torch.arange(self._head[0, ..., 0].numel()).view(self._head.shape[1:3]).T
        before = inputs * n.head_inputs
        found["head_input"] = (self._head, table[:, :before])
        found["head_weight"] = (self._head, table[:, before : before + units])
        found["head_bias"] = (self._head, table[:, -1])
        return {name: found[name] for name in n.shapes()}

    # -- running -------------------------------------------------------------------------

    def run(self, given: Sequences, learn: bool = False) -> Outcome:
        """Run every network over the same sequences, in order.

        Args:
            given: B sequences; see `Sequences`.
            learn: change the weights after (or during) each sequence.
        """
        most, batch = int(given.lengths.max()), len(given.lengths)
        if int(given.lengths.min()) < 1:
            raise ValueError(f"lengths must be positive, got {int(given.lengths.min())}")
        buffers = Buffers(self.network, most, self.lanes, self.dtype)
        self._make_room(most)
        seen = torch.zeros(self.groups, batch, most, self.network.outputs, self.lanes)
        seen = seen.to(self.dtype)
        sums = torch.zeros(3, self.groups, batch, self.lanes, dtype=self.dtype)
        for b in range(batch):
            wide = _in_every_lane(given, b, self.lanes, self.network.every_step)
            steps = buffers.write(wide, range(self.lanes))
            for g in range(self.groups):
                pointers = [
                    *self._pointers(g),
                    *buffers.pointers()[:-1],
                    seen[g, b].data_ptr(),
                    *(sums[k, g, b].data_ptr() for k in range(3)),
                ]
                _invoke(self._lib.gw_run, [steps, int(learn)], pointers)
        outputs = seen.permute(0, 4, 2, 1, 3).flatten(0, 1)[: self.count]
        found = sums.permute(0, 1, 3, 2).flatten(1, 2)[:, : self.count]
        if self.network.ranked:
            found[0] = float("nan")
        return Outcome(outputs, found[0], found[1], found[2])

    def train(self, sequences: int) -> bool:
        """Draw and learn up to that many more sequences a network; is any still learning?

        A network whose criterion is met keeps its weights while others go on. One call cannot be
        interrupted: choose `sequences` so that it returns often enough.

        Raises:
            ValueError: there is no task.
        """
        c, going = self.criterion, 0
        numbers = [sequences, self.seed, 0, c.most_wrong, MEASURES.index(c.measure), c.window]
        for g, span in self._spans():
            own = (self.number[span], self.met[span], self._wrong[g], self._error[g])
            sums = (self._error_sum[span], self._wrong_count[span])
            going += self._on_task("gw_train", numbers, g, c, (*own, *sums))
        return going > 0

    def test(
        self,
        sequences: int,
        criterion: Criterion | None = None,
        purpose: int = 1,
        only: Sequence[int] | None = None,
        enough: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run sequences of the task without learning; how many were wrong, and their mean error.

        Args:
            sequences: numbers 0 … sequences - 1 of each network's stream.
            criterion: its tolerance says what is wrong, its measure which error; None: the one of
                training.
            purpose: not 0, which networks learn from.
            only: networks that matter; None: all.
            enough: stop when each of those has been wrong more often than the criterion allows;
                what is returned then only says that.

        Returns:
            [N] wrong sequences and [N] mean error.

        Raises:
            ValueError: there is no task, or the purpose is 0.
        """
        c = criterion or self.criterion
        if purpose < 1:
            raise ValueError(f"purpose must be positive, got {purpose}")
        most = c.most_wrong if enough else sequences
        numbers = [sequences, self.seed, purpose, most, MEASURES.index(c.measure)]
        wanted = torch.zeros(self.groups * self.lanes, dtype=torch.uint8)
        wanted[list(range(self.count) if only is None else only)] = 1
        wrong = torch.zeros(self.groups * self.lanes, dtype=torch.int64)
        error = torch.zeros(self.groups * self.lanes, dtype=torch.float64)
        for g, span in self._spans():
            if wanted[span].any():
                own = (wanted[span], wrong[span], error[span])
                error[span] /= self._on_task("gw_test", numbers, g, c, own)
        return wrong[: self.count], error[: self.count]

    def _spans(self) -> list[tuple[int, slice]]:
        return [(g, slice(g * self.lanes, (g + 1) * self.lanes)) for g in range(self.groups)]

    def _on_task(
        self, name: str, numbers: list[int], g: int, c: Criterion, own: tuple[torch.Tensor, ...]
    ) -> int:
        """Call gw_train or gw_test on group g; its results go into `own`."""
        if self.task is None:
            raise ValueError("training and testing need a task, got None")
        bounds = (ctypes.c_double * 2)(c.tolerance, c.error)
        *held, words = self._buffers.pointers()
        pointers = [
            *self._pointers(g),
            *held,
            ctypes.addressof(self._task_numbers),
            ctypes.addressof(bounds),
            self.streams[g * self.lanes :].data_ptr(),
            *(t.data_ptr() for t in own),
            words,
        ]
        return _invoke(getattr(self._lib, name), numbers, pointers)

    def fit(
        self, most: int, progress: Callable[[Lanes], None] | None = None, seconds: float = 0.25
    ) -> None:
        """Train until every network has met the criterion or drawn `most` sequences.

        In pieces of about `seconds`, so that it can be interrupted (Ctrl-C leaves a state to save
        and go on from) and `progress(self)` be called after each.

        Raises:
            ValueError: there is no task, or `most` or `seconds` is not positive.
        """
        for name, value in {"most": most, "seconds": seconds}.items():
            if not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        piece, going = 1, bool((self.met == 0).any())
        while going and (left := most - int(self.number[: self.count].max())) > 0:
            piece = min(piece, left)
            start = time.perf_counter()
            going = self.train(piece)
            spent = max(time.perf_counter() - start, 1e-6)
            piece = max(1, int(piece * min(seconds / spent, 8.0)))
            if progress is not None:
                progress(self)

    def _pointers(self, g: int) -> list[int]:
        rate = self.rates[g * self.lanes : (g + 1) * self.lanes]
        held = [self._weight[g], self._param[g], self._head[g], *self._scratch, rate, self._tape]
        return [t.data_ptr() for t in held]

    # -- progress ------------------------------------------------------------------------

    @property
    def solved(self) -> list[int | None]:
        """Per network: after how many sequences its criterion was met."""
        return [int(m) or None for m in self.met[: self.count]]

    @property
    def recent_error(self) -> torch.Tensor:
        """Mean error of each network over its last `window` sequences, [N]."""
        seen = self.number.clamp(min=1, max=self.criterion.window)
        return (self._error_sum / seen)[: self.count]

    def error_of_last(self, sequences: int) -> torch.Tensor:
        """Mean error of each network over its last `sequences`, at most `window` of them, [N]."""
        window = self.criterion.window
        number = self.number.view(self.groups, 1, -1)
        seen = number.clamp(max=min(sequences, window))
        age = (number - 1 - torch.arange(window).view(1, -1, 1)) % window
        recent = torch.where(age < seen, self._error.double(), 0.0).sum(1)
        return (recent / seen[:, 0].clamp(min=1)).flatten()[: self.count]

    @property
    def recent_wrong(self) -> torch.Tensor:
        """How many of each network's last `window` sequences were wrong, [N]."""
        return self._wrong_count[: self.count].clone()

    _KEPT = (
        *("_weight", "_param", "_head", "streams", "number", "met"),
        *("_wrong", "_error", "_error_sum", "_wrong_count"),
    )

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from: later runs continue to the same numbers."""
        return {n.strip("_"): getattr(self, n).clone() for n in self._KEPT}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Continue from a `state_dict` of networks of the same kind and number."""
        for n in self._KEPT:
            own, given = getattr(self, n), state[n.strip("_")]
            if own.shape != given.shape or own.dtype != given.dtype:
                raise ValueError(
                    f"state {n.strip('_')} must be {own.dtype} {tuple(own.shape)}, "
                    f"got {given.dtype} {tuple(given.shape)}"
                )
        for n in self._KEPT:
            getattr(self, n).copy_(state[n.strip("_")])


def _check_task(network: Network, task: Task) -> None:
    flags = ("symbols", "every_step", "target_symbols", "judge_end", "ranked")
    for name in ("inputs", "outputs", *flags):
        if getattr(network, name) != getattr(task, name):
            raise ValueError(
                f"network.{name} must be {getattr(task, name)} for the task {task.name}, "
                f"got {getattr(network, name)}"
            )


def _in_every_lane(given: Sequences, b: int, lanes: int, every_step: bool) -> Sequences:
    """Sequence b, in each of the lanes."""

    def wide(t: torch.Tensor) -> torch.Tensor:
        return t[:, b : b + 1].expand(-1, lanes, *t.shape[2:])

    if every_step:
        target = wide(given.target)
    else:
        target = given.target[b].expand(lanes, *given.target.shape[1:])
    return Sequences(wide(given.x), given.lengths[b].expand(lanes), target)


def _invoke(function: Any, numbers: list[int], pointers: list[int]) -> int:
    n = (ctypes.c_int64 * len(numbers))(*numbers)
    p = (ctypes.c_void_p * len(pointers))(*pointers)
    return function(n, p)
