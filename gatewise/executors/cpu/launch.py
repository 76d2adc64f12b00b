"""Run a request on the compiled kernel, or say why it cannot be."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from gatewise.executors import reference
from gatewise.executors.cpu.buffers import forward
from gatewise.executors.cpu.gradient import Recurrence, parts
from gatewise.executors.cpu.kernel import Kernel, kernel
from gatewise.executors.cpu.share import Work, in_words
from gatewise.executors.request import Request, Result
from gatewise.executors.rerun import inputs_of, transformed, wants_gradient

_DTYPES = (torch.float32, torch.float64)


def obstacles(request: Request) -> list[str]:
    """Why the kernel cannot run `request`; empty where it can."""
    trace, x = request.trace, request.x
    if x.device.type != "cpu":
        return [f"the C kernel runs on the CPU, the input is on {x.device.type}"]
    if type(x) is not torch.Tensor and type(x) is not torch.nn.Parameter:
        return [f"the C kernel reads plain tensors, the input is a {type(x).__name__}"]
    if torch._C._get_tracing_state() is not None:
        return ["torch.jit.trace does not see what the C kernel does"]
    if x.dtype not in _DTYPES:
        return [f"the C kernel computes in float32 or float64, the input is {x.dtype}"]
    found = []
    if request.held != "full" and x.dtype != torch.float32:
        found.append(f"the C kernel holds {request.held} weights of float32, not of {x.dtype}")
    if trace.late_sources and len(trace.feedback) > 1:
        found.append("no kernel for a late gate beside several fed-back states")
    if transformed(request.x):
        found.append("torch.func transforms and forward-mode derivatives need the reference")
    if not found:
        made = _kernel_for(request)
        if isinstance(made, str):
            found.append(made)
    return found


def note(request: Request) -> str:
    """What the kernel makes of weights in few bits on this processor; empty where as they are."""
    made = _kernel_for(request)
    if isinstance(made, str) or made.native:
        return ""
    return "widened to float32, because this processor does not multiply them"


def _kernel_for(request: Request) -> Kernel | str:
    zoned = tuple(request.zoneout.probability) if request.zoneout else ()
    training = wants_gradient(request)
    trace, dtype = request.trace, request.x.dtype
    cut = request.cut if training else frozenset()  # matters to gradients alone
    sometimes = request.cut_steps is not None and not cut <= {*trace.feedback}
    masked = bool(trace.late_sources) and request.feedback_mask is not None
    projected = request.weights.projection is not None
    options = (request.record, zoned, cut, sometimes, masked, projected, request.held)
    return kernel(trace, dtype, training, *options)


def run(request: Request) -> Result:
    """Run the kernel; differentiable where an input requires it."""
    return run_together([request])[1][0]


def run_together(requests: Sequence[Request]) -> tuple[torch.Tensor, list[Result]]:
    """Run requests that share an input and `same_kernel`: their outputs side by side in one tensor.

    Differentiable where an input requires it.
    """
    request = requests[0]
    if not request.x.shape[-3] or not request.x.shape[-2]:
        # nothing to compute; the reference knows the shapes
        results = [reference.run(r) for r in requests]
        return torch.cat([r.output for r in results], -1), results
    made = _kernel_for(request)
    if isinstance(made, str):
        raise RuntimeError(made)
    if made.backward is not None:
        inputs = [inputs_of(r)[1:] for r in requests]
        flat = Recurrence.apply(requests, made, request.x, *(t for own in inputs for t in own))
    else:
        flat, _ = forward(requests, made)
    outputs = flat[:1] if len(requests) == 1 else flat[0].chunk(len(requests), -1)
    count = len(request.trace.states)
    return flat[0], [
        Result(
            output,
            dict(zip(request.trace.states, own[:count], strict=True)),
            dict(zip(request.record, own[count:], strict=True)),
        )
        for output, *own in parts(flat, outputs)
    ]


def same_kernel(requests: Sequence[Request]) -> bool:
    """Does one kernel compute them all?"""
    first, *others = (_kernel_for(r) for r in requests)
    return all(made is first for made in others)


def beside(requests: Sequence[Request]) -> str:
    """How requests of `run_together` share the threads, in words."""
    made = _kernel_for(requests[0])
    assert isinstance(made, Kernel)
    return in_words(Work.of(requests, made))
