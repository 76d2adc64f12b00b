"""One step at a time: the same cell as in a sequence, its weights kept packed between steps.

Shapes: B = batch, I = input size, O = output size, L = layers, N = size of a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from gatewise.executors import SlowPathError
from gatewise.executors.cpu.stepping import CompiledStack, linear, processors
from gatewise.layers import check
from gatewise.layers.changes import Watch
from gatewise.layers.explain import explain
from gatewise.layers.recurrent import Recurrent
from gatewise.layers.state import check_state, make_state, read_state


class Stepper:
    """A layer that is fed one step after another and remembers its state.

    y_t, state = layer(x_t, state), but with the weights kept in the kernel's order and the
    state in the kernel's buffers: what is left per step is the arithmetic and a few
    microseconds. The outputs are those of the layer in evaluation mode, to the bit.

    A stream has no gradient. Weights that change between steps (an optimiser's step, a loaded
    checkpoint, a replaced parameter) are noticed and packed again. What is written into
    `parameter.data` or through NumPy cannot be seen without reading all weights: call `refresh()`.

    With `threads`, a step's units are shared among as many threads, or as many as there are
    processors that this process may use. They meet at every step, so it needs processors that
    nobody else keeps busy.

    With `heads`, linear maps on top of each other, steps give what these make of the output.

    Raises ValueError for a bidirectional layer, which needs the future.

    >>> import torch
    >>> import gatewise as gw
    >>> layer = gw.LSTM(3, 5, num_layers=2)
    >>> stepper = layer.stream(batch=2)
    >>> x = torch.randn(4, 2, 3)
    >>> steps = torch.stack([stepper(x_t) for x_t in x])
    >>> bool((steps - layer(x)[0]).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        layer: Recurrent,
        batch: int = 1,
        threads: int = 1,
        heads: Sequence[nn.Linear] = (),
    ) -> None:
        if layer.bidirectional:
            raise ValueError("a stream cannot be bidirectional: the reverse direction starts last")
        if layer.replicas:
            raise ValueError("a stream is of one network: gatewise.replica(layer, k).stream()")
        if not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch must be at least 1, got {batch!r}")
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads!r}")
        self.layer, self.batch, self.heads = layer, batch, tuple(heads)
        self.threads = min(threads, processors())  # to the same bits; more would wait in turns
        like = next(layer.parameters()).detach().new_empty(0)
        self._dtype, self._device, self._like = like.dtype, like.device, like
        self._shape = (batch, layer.input_size)
        self._layouts = [d.layout for d in layer.directions]
        self._names = self._layouts[0].trace.states
        self.obstacles = self._obstacles()
        self._stack: CompiledStack | None = None
        self._state: Any = None  # of the general path; None: zero
        if not self.obstacles:
            self._stack = CompiledStack(self._weights(), batch, self._dtype, self.threads)
            self._watch = Watch((layer, *heads))
        elif layer.strict:
            raise SlowPathError("strict=True refuses a slow stream: " + "; ".join(self.obstacles))

    # -- running -------------------------------------------------------------------------

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The next step: x [B, I] to the last layer's output [B, O], or the last head's.

        With batch 1 also [I] to [O]. Raises ValueError or TypeError for a wrong shape, dtype or
        device, RuntimeError where a gradient would be expected.
        """
        single = x.dim() == 1 and self.batch == 1
        if single:
            x = x.unsqueeze(0)
        if x.shape != self._shape:
            raise ValueError(f"x must be {list(self._shape)}, got {list(x.shape)}")
        if x.dtype != self._dtype or x.device != self._device:
            raise TypeError(
                f"x must be {self._dtype} on {self._device}, got {x.dtype} on {x.device}"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise RuntimeError("a stream has no gradient: detach x or step under torch.no_grad()")
        y = self.advance(x if x.is_contiguous() else x.contiguous())
        return y.squeeze(0) if single else y

    def advance(self, x: torch.Tensor) -> torch.Tensor:
        """A step without the checks: x [B, I], contiguous, of the layer's dtype and device."""
        if self._stack is None:
            return self._general_step(x)
        if self._watch.changed():
            self.refresh()
        return self._stack.step(x)

    def _general_step(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        training = layer.training
        layer.eval()
        try:
            with torch.no_grad():
                sequence = x.unsqueeze(1 if layer.batch_first else 0)
                y, self._state = layer(sequence, self._state)
                y = y.squeeze(1 if layer.batch_first else 0)
                for head in self.heads:
                    y = head(y)
                return y
        finally:
            layer.train(training)

    def refresh(self) -> None:
        """Read the layer's weights again."""
        if self._stack is not None:
            self._stack.load(self._weights())
            self._watch.look()

    # -- state ---------------------------------------------------------------------------

    @property
    def state(self) -> Any:
        """The state as the layer returns it, each [L, B, N]: a copy."""
        if self._stack is None:
            held = read_state(self._state, self._names)
            return self._in_user_form({n: t.clone() for n, t in held.items()})
        pairs = list(zip(self._layouts, self._stack.states(), strict=False))  # less the heads
        return self._in_user_form(
            {n: torch.stack([o.compact(n, held[n]) for o, held in pairs]) for n in self._names}
        )

    @state.setter
    def state(self, given: Any) -> None:
        values = read_state(given, self._names)
        for name, t in values.items():
            check_state(name, t, self._state_shape(name), self._like)
        if self._stack is None:
            self._state = self._in_user_form({n: t.detach().clone() for n, t in values.items()})
            return
        for k, layout in enumerate(self._layouts):
            for name, t in self._stack.states()[k].items():
                if name in values:
                    t.copy_(layout.expand_state(name, values[name][k].detach()))
                else:
                    t.zero_()

    def _state_shape(self, name: str) -> tuple[int, ...]:
        return (len(self._layouts), self.batch, self._layouts[0].state_size(name))

    def _in_user_form(self, values: dict[str, torch.Tensor]) -> Any:
        """A tensor for one state, a named tuple for more; what is not given is zero."""
        ordered = [
            values[n] if n in values else self._like.new_zeros(self._state_shape(n))
            for n in self._names
        ]
        return ordered[0] if len(ordered) == 1 else make_state(self._names, ordered)

    def reset(self, rows: torch.Tensor | None = None) -> None:
        """Zero the state: of all rows, or of those that `rows` (bool [B]) marks."""
        if rows is None:
            self.state = None
            return
        if rows.dtype != torch.bool or rows.shape != (self.batch,):
            raise ValueError(
                f"rows must be bool [{self.batch}], got {rows.dtype} {list(rows.shape)}"
            )
        held = read_state(self.state, self._names)
        self.state = {n: t.masked_fill(rows.view(1, -1, 1), 0.0) for n, t in held.items()}

    # -- what it is made of --------------------------------------------------------------

    def _weights(self) -> list[Any]:
        found = []
        for d in self.layer.directions:
            tensors = self.layer.weights_of(d)
            check.weights(tensors, d.shapes, self._like)
            found.append((d.layout.trace, d.layout.weights(tensors), self.layer.weights))
        for head in self.heads:
            rows, columns = head.out_features, head.in_features
            held = {"head's weight": head.weight}
            if head.bias is not None:
                held["head's bias"] = head.bias
            shapes = {"head's weight": (rows, columns), "head's bias": (rows,)}
            check.weights(held, shapes, self._like)
            found.append(linear(head.weight, head.bias))
        return found

    def _obstacles(self) -> list[str]:
        """Why steps go through the layer's general call; empty where they need not."""
        layer = self.layer
        found = []
        if layer.layer_norm or layer.residual:
            found.append("layer norm or residuals between layers")
        if layer.zoneout:
            found.append("zoneout")
        shape = (1, self.batch, layer.input_size)
        x = self._like.new_zeros(shape).transpose(0, 1 if layer.batch_first else 0)
        with torch.no_grad():
            return found + list(explain(layer, x).reasons)
