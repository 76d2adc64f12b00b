"""The layer: any cell, stacked, in one or both directions, over batches of sequences.

Shapes: T = time, B = batch, I = input size, H = hidden units, P = projection size, O = P or H,
L = layers, D = directions (1, or 2 if bidirectional), N = size of a state or signal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from gatewise.cells.registry import get_cell
from gatewise.equations.cell import Cell
from gatewise.equations.trace import trace
from gatewise.executors import EXECUTORS, Result
from gatewise.executors.counter import checked_seed
from gatewise.executors.rounding import HELD
from gatewise.layers import check, masks, stack
from gatewise.layers.border import Batch, read_input, read_replicas
from gatewise.layers.initialise import Init, initialise
from gatewise.layers.state import check_state, make_state, read_state

if TYPE_CHECKING:
    from gatewise.layers.stepper import Stepper


class Recurrent(nn.Module):
    """Any cell over sequences: stacked, bidirectional, ragged, with every option composable.

    Args:
        cell: a name of `gatewise cells`, a `Cell`, a Cell class, or "FILE.py:CLASS".
        input_size: I, numbers per step of the input.
        hidden_size: H, units per layer and direction.
        num_layers: L, layers stacked on each other.
        bias: False leaves out every bias.
        batch_first: inputs, outputs and records have B before T.
        dropout: probability of dropping each number handed from a layer to the next.
        bidirectional: adds a second set of units that reads the input from its end.
        proj_size: P, if not 0: the output state is projected from H to P numbers.
        device: where the parameters are made.
        dtype: floating-point type of the parameters, and so of inputs and states.
        executor: "auto", "cpu" (the compiled kernel), "scan" (all steps at once, for the few cells
            whose gates do not see the state) or "reference".
        strict: raise SlowPathError where the compiled kernel cannot run.
        zoneout: probability that a unit keeps its previous state (Krueger et al., 2016), for
            every state but fed-back gates, or a dict by state name.
        recurrent_dropout: probability of dropping a fed-back unit, with one mask for all steps
            of a sequence (Gal & Ghahramani, 2016).
        input_dropout: the same for each layer's input; or a probability for each layer.
        weight_dropout: probability of dropping each entry of `weight_hh`, with one mask for a
            whole call (Wan et al., 2013; on recurrent weights, Merity et al., 2017).
        residual: adds a layer's input to its output, from the second layer on.
        layer_norm: a `torch.nn.LayerNorm` between layers.
        checkpoint: training keeps the states between chunks of time alone and runs each chunk
            again in backward: for one more run forward, memory beside each layer's input and
            output grows with √T instead of T. True takes √T steps a chunk, an int so many.
        weights: how products read W and U: "full", as the parameters are; "bf16", rounded to
            bfloat16, which halves what is read of them; "int8", a byte each with a scale for
            each row, for inference. Sums, states and the parameters stay in float32.
        init: "torch", "forget_bias(1.0)", "chrono(T)", "orthogonal", "uniform(0.1)", a function
            of the layer, or a list of these, applied in order; see `gatewise.init`.

    Parameters carry torch's names: `weight_ih_l0` [gates·H, I], `weight_hh_l0` [gates·H, O],
    `bias_ih_l0`, `bias_hh_l0` (or `bias_l0` for a cell with one bias), `weight_hr_l0` [P, H],
    `NAME_l0` [H] for a per-unit parameter; `_reverse` is appended for the second direction.

    Raises:
        TypeError, ValueError: an argument of a wrong type or out of range.

    Under autocast the layer computes in its parameters' dtype: inputs and states are cast to
    it and autocast is off inside.

    Sources: zoneout, Krueger et al. 2016; variational dropout, Gal & Ghahramani 2016; dropped
    weights, Merity, Keskar & Socher 2017; checkpoints, Chen et al. 2016.

    >>> import torch
    >>> import gatewise as gw
    >>> layer = gw.Recurrent("lstm-peephole", 3, 5, num_layers=2, bidirectional=True)
    >>> output, state = layer(torch.zeros(7, 2, 3))
    >>> output.shape, state.c.shape
    (torch.Size([7, 2, 10]), torch.Size([4, 2, 5]))
    """

    cell: Cell
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    replicas: int = 0  # N where the parameters of N layers are stacked; see `replicate`

    def __init__(
        self,
        cell: str | Cell | type[Cell],
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        executor: str = "auto",
        strict: bool = False,
        zoneout: float | Mapping[str, float] = 0.0,
        recurrent_dropout: float = 0.0,
        input_dropout: float | Sequence[float] = 0.0,
        weight_dropout: float = 0.0,
        residual: bool = False,
        layer_norm: bool = False,
        checkpoint: bool | int = False,
        weights: str = "full",
        init: Init | Sequence[Init] = "torch",
    ) -> None:
        super().__init__()
        self.cell = get_cell(cell)
        self.mode = type(self.cell).__name__
        self.input_size = check.integer("input_size", input_size, 1, "positive")
        self.hidden_size = check.integer("hidden_size", hidden_size, 1, "positive")
        self.num_layers = check.integer("num_layers", num_layers, 1, "positive")
        self.bias = check.flag("bias", bias)
        self.batch_first = check.flag("batch_first", batch_first)
        self.dropout = check.dropout(dropout, num_layers)
        self.bidirectional = check.flag("bidirectional", bidirectional)
        self.proj_size = check.projection(proj_size, hidden_size)
        self.executor = check.one_of("executor", executor, EXECUTORS)
        self.strict = check.flag("strict", strict)
        self.zoneout = check.zoneout(zoneout, self.cell)
        self.recurrent_dropout = check.probability("recurrent_dropout", recurrent_dropout)
        self.input_dropout = check.per_layer("input_dropout", input_dropout, num_layers)
        self.weight_dropout = check.probability("weight_dropout", weight_dropout)
        self.residual = check.flag("residual", residual)
        self.layer_norm = check.flag("layer_norm", layer_norm)
        self.checkpoint = check.chunk("checkpoint", checkpoint)
        self.weights = check.one_of("weights", weights, HELD)
        self.init = init

        self._plan = self._make_plan()
        if self.weight_dropout and not self._plan[0][0].layout.trace.feedback:
            raise ValueError(
                f"weight_dropout drops recurrent weights, and {self.mode} has none; leave it at 0"
            )
        factory: dict[str, Any] = {"device": device, "dtype": check.floating(dtype)}
        for d in self.directions:
            shapes = d.layout.shapes()
            for local, name in d.names:
                self.register_parameter(name, nn.Parameter(torch.empty(shapes[local], **factory)))
        width = self.output_size * self.num_directions
        if layer_norm:
            gaps = range(self.num_layers - 1)
            self.norms = nn.ModuleList(nn.LayerNorm(width, **factory) for _ in gaps)
        self.reset_parameters()

    # -- what the layer consists of ------------------------------------------------------

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Numbers per step that one direction puts out: P if projected, else H."""
        return self.proj_size or self._plan[0][0].layout.state_size(self._states[0])

    @property
    def directions(self) -> Iterator[stack.Direction]:
        """Every direction of every layer, in the order of states and parameters."""
        return (d for layer in self._plan for d in layer)

    @property
    def all_weights(self) -> list[list[nn.Parameter]]:
        """The parameters of each layer and direction, as torch.nn.LSTM's."""
        return [[getattr(self, name) for _, name in d.names] for d in self.directions]

    def weights_of(self, direction: stack.Direction) -> dict[str, torch.Tensor]:
        """One direction's parameters by their names in `direction.layout.shapes()`."""
        own = self._parameters
        # A parametrised weight is no parameter of this module any more: getattr finds it.
        return {
            local: own[name] if name in own else getattr(self, name)  # type: ignore[misc]
            for local, name in direction.names
        }

    def flatten_parameters(self) -> None:
        """Does nothing; torch.nn.LSTM has it, and code written for that calls it."""

    def reset_parameters(self) -> None:
        """Draw the parameters again, as `init` says.

        Raises ValueError for a layer of replicas, each of which has a seed: `replicate` again.
        """
        if self.replicas:
            raise ValueError("a layer of replicas is not drawn again: call gatewise.replicate")
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.reset_parameters()
        initialise(self, self.init)

    def _make_plan(self) -> stack.Plan:
        traced = trace(self.cell)
        self._states = traced.states
        return stack.plan(
            traced,
            self.input_size,
            self.hidden_size,
            self.num_layers,
            self.bias,
            self.bidirectional,
            self.proj_size,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_plan"}  # made again from cell

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan = self._make_plan()

    # -- running -------------------------------------------------------------------------

    def forward(
        self,
        input: torch.Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: torch.Tensor | Sequence[int] | None = None,
        resets: torch.Tensor | None = None,
        record: Sequence[str] = (),
        seed: int | Sequence[int] | None = None,
        offset: int = 0,
        hx: Any = None,
    ) -> tuple[Any, ...]:
        """Run over whole sequences.

        Args:
            input: [T, B, I], [B, T, I] if batch_first, [T, I] unbatched, or a PackedSequence.
            state: the states before the first step, each [L*D, B, N] (unbatched [L*D, N]): a
                tensor for a cell with one state, a tuple in the order of `cell.states`, or a
                dict by name. What is not given is zero.
            lengths: [B] integers in 0…T: the steps of each row that exist; no order needed.
            resets: bool [T, B] ([B, T] if batch_first): the row's state is zeroed before that
                step, because a new piece begins there; both directions keep pieces apart.
            record: names of states, gates or other signals to return at every step.
            seed: what random masks are drawn from, in 0…2^63 - 1, one for each replica if any;
                None draws from torch's generator.
            offset: the number of `input`'s first step in a longer sequence, so that a sequence
                run in chunks with one seed meets the masks of an unbroken run.
            hx: torch's name for `state`.

        Returns:
            output [T, B, D*O] in the input's form, zero at steps that do not exist; the states
            after each row's last step, in the shape of `state`: a tensor for one state, a tuple
            with named fields for more; and, with `record`, a dict name -> [L*D, T, B, N].

        Raises:
            TypeError, ValueError: before any work, for a wrong type, shape, dtype or device, a
                length or an unknown name.
            SlowPathError: `strict` and the compiled kernel cannot run this.
        """
        if state is not None and hx is not None:
            raise TypeError("give state or hx, which are the same argument, got both")
        given = state if hx is None else hx
        call = (input, given, lengths, resets, record, seed, offset)
        if torch.compiler.is_compiling():
            # A loop over time would be unrolled into the graph; the kernel is no torch op yet.
            eager: Any = torch.compiler.disable(self._run)
            return eager(*call)
        return self._run(*call)

    def stream(self, batch: int = 1, threads: int = 1) -> Stepper:
        """This layer one step at a time: `y_t = stepper(x_t)`; see `Stepper`."""
        from gatewise.layers.stepper import Stepper  # which itself needs this class

        return Stepper(self, batch, threads)

    def run_with(
        self,
        runner: stack.Runner,
        input: torch.Tensor | PackedSequence,
        state: Any = None,
        *,
        lengths: torch.Tensor | Sequence[int] | None = None,
        resets: torch.Tensor | None = None,
        record: Sequence[str] = (),
        seed: int | Sequence[int] | None = None,
        offset: int = 0,
    ) -> tuple[Any, ...]:
        """A call whose every request to an executor goes through `runner`.

        So that a learning rule can say which edges carry a gradient; otherwise as a plain call.
        """
        seed = self._seed(seed, offset, draw=True)
        return self._run(input, state, lengths, resets, record, seed, offset, runner)

    def dry_run(
        self,
        runner: stack.Runner,
        input: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        resets: Any = None,
        record: Sequence[str] = (),
        seed: int | Sequence[int] | None = None,
        offset: int = 0,
    ) -> None:
        """Hand `runner` every request a call would make; draws no random number."""
        self._unroll(input, state, lengths, resets, record, seed, offset, runner)

    def _run(self, *call: Any) -> tuple[Any, ...]:
        return self._give_back(*self._unroll(*call))

    def _unroll(
        self,
        input: Any,
        state: Any,
        lengths: Any,
        resets: Any,
        record: Sequence[str],
        seed: int | Sequence[int] | None,
        offset: int,
        runner: stack.Runner | None = None,
    ) -> tuple[stack.Call, torch.Tensor, list[Result]]:
        directions = self._plan[0]
        like = self.weights_of(directions[0])["weight_ih"]
        device = like.device.type
        autocast = device != "meta" and torch.is_autocast_enabled(device)
        signals = directions[0].layout.trace.signals
        names = check.record_names(record, signals) if record else ()
        seed = self._seed(seed, offset, draw=runner is None)
        form = (self.input_size, self.batch_first, like, autocast, lengths, resets)
        if self.replicas:
            batch = read_replicas(input, self.replicas, *form)
        else:
            batch = read_input(input, *form)
        initial = {} if state is None else self._initial(state, batch, like, autocast)
        call = stack.Call(batch, initial, names, seed, offset)
        if autocast:
            with torch.autocast(like.device.type, enabled=False):
                output, results = stack.run(self, self._plan, call, runner)
        else:
            output, results = stack.run(self, self._plan, call, runner)
        return call, output, results

    def _give_back(
        self, call: stack.Call, output: torch.Tensor, results: list[Result]
    ) -> tuple[Any, ...]:
        """Output, states and records as the user gets them."""
        layout, batch = self._plan[0][0].layout, call.batch
        values = []
        for s in self._states:
            found = [r.state[s] for r in results]
            whole = found[0].unsqueeze(-3) if len(found) == 1 else torch.stack(found, -3)
            values.append(batch.state(layout.compact(s, whole)))
        final = values[0] if len(values) == 1 else make_state(self._states, values)
        if not call.record:
            return batch.output(output), final
        records = {
            n: batch.record(layout.compact(n, torch.stack([r.record[n] for r in results], -4)))
            for n in call.record
        }
        return batch.output(output), final, records

    def _seed(self, seed: Any, offset: int, draw: bool) -> masks.Seed:
        """What random masks are drawn from: as given, or from torch's generator (`draw`), or 0."""
        if offset:
            check.step_offset(offset)
        if seed is not None:
            return check.replica_seeds(seed, self.replicas) if self.replicas else checked_seed(seed)
        fresh = draw and self._random
        if self.replicas:
            return tuple(masks.fresh_seed() if fresh else 0 for _ in range(self.replicas))
        return masks.fresh_seed() if fresh else 0

    @property
    def _random(self) -> bool:
        return self.training and bool(
            self.zoneout
            or self.recurrent_dropout
            or self.input_dropout
            or self.weight_dropout
            or (self.dropout and self.num_layers > 1)
        )

    def _initial(
        self, state: Any, batch: Batch, like: torch.Tensor, autocast: bool
    ) -> dict[str, torch.Tensor]:
        """The states before the first step, [L*D, B, N] by name; absent where zero."""
        found = read_state(state, self._states)
        many = self.num_layers * self.num_directions
        layout, rows = self._plan[0][0].layout, batch.x.shape[-2]
        for name, t in found.items():
            size = layout.state_size(name)
            shape = (many, size) if batch.unbatched else (many, rows, size)
            shape = (self.replicas, *shape) if self.replicas else shape
            if autocast and t.is_floating_point():
                t = t.to(like.dtype)
            check_state(name, t, shape, like)
            found[name] = t.unsqueeze(1) if batch.unbatched else t
        return found

    # -- printing ------------------------------------------------------------------------

    _SHOWN: tuple[tuple[str, Any], ...] = (
        ("proj_size", 0),
        ("num_layers", 1),
        ("bias", True),
        ("batch_first", False),
        ("dropout", 0.0),
        ("bidirectional", False),
        ("executor", "auto"),
        ("strict", False),
        ("zoneout", {}),
        ("recurrent_dropout", 0.0),
        ("input_dropout", 0.0),
        ("weight_dropout", 0.0),
        ("residual", False),
        ("layer_norm", False),
        ("checkpoint", False),
        ("weights", "full"),
        ("init", "torch"),
    )

    _named = False  # True where the class's own name says which cell it has

    def extra_repr(self) -> str:
        own = [f"{k}={getattr(self, k)!r}" for k, usual in self._SHOWN if getattr(self, k) != usual]
        cell = [] if self._named else [repr(self.cell)]
        own += [f"replicas={self.replicas}"] if self.replicas else []
        return ", ".join([*cell, str(self.input_size), str(self.hidden_size), *own])
