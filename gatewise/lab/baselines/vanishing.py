"""The regulariser that keeps errors from vanishing on their way back in time.

Shapes: N = networks, T = time, B = batch, H = hidden units.
"""

from __future__ import annotations

import torch

from gatewise.lab.baselines.models import RecurrentModel


def vanishing(model: RecurrentModel, loss: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far errors shrink or grow on their way back, to be made small; [N].

    Ω = Σ_t (|δ_{t+1} ∂h_{t+1}/∂h_t| / |δ_{t+1}| - 1)², δ_t = ∂loss/∂h_t, for h = tanh(…); as in
    the paper only the explicit U of ∂h_{t+1}/∂h_t is differentiated. Source: Pascanu, Mikolov &
    Bengio, On the difficulty of training recurrent neural networks, 2013, eq. 9-10.

    Args:
        model: networks of a simple recurrent cell, that have just run.
        loss: of each network [N], from that call.
        lengths: of the sequences [N, B].
    """
    h = model.seen
    assert h is not None
    u = model.layer.get_parameter("weight_hh_l0")  # [N, H, H]
    [direct] = torch.autograd.grad(loss.sum(), h, retain_graph=True)
    slope = 1 - h.detach().square()  # [N, T, B, H]
    after, total = torch.zeros_like(direct[:, 0]), torch.zeros_like(loss)
    for t in range(h.shape[1] - 1, 0, -1):
        after = direct[:, t] + after
        back = (after * slope[:, t]) @ u  # the one product that is differentiated
        norm = after.norm(dim=-1)  # [N, B]
        ratio = back.norm(dim=-1) / norm.clamp(min=1e-20)
        total = total + torch.where(norm > 1e-20, (ratio - 1).square(), 0.0).sum(1)
        after = back.detach()
    return total / lengths.sum(1)
