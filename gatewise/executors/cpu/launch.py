"""Run a request on the compiled kernel, or say why it cannot be."""

from __future__ import annotations

import torch

from gatewise.executors import reference
from gatewise.executors.cpu.buffers import forward
from gatewise.executors.cpu.gradient import Recurrence
from gatewise.executors.cpu.kernel import Kernel, kernel
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
    if not request.x.shape[-3] or not request.x.shape[-2]:
        return reference.run(request)  # nothing to compute; the reference knows the shapes
    made = _kernel_for(request)
    if isinstance(made, str):
        raise RuntimeError(made)
    if wants_gradient(request):
        flat = Recurrence.apply(request, made, *inputs_of(request))
    else:
        flat = forward(request, made)[0]
    states = request.trace.states
    return Result(
        flat[0],
        dict(zip(states, flat[1 : 1 + len(states)], strict=True)),
        dict(zip(request.record, flat[1 + len(states) :], strict=True)),
    )
