"""One network that learns a task from mini-batches by gradients, and can be put aside."""

from __future__ import annotations

import torch
from torch import nn

from gatewise.executors.lanes import Criterion
from gatewise.lab.baselines.models import (
    MODELS,
    Candidate,
    RecurrentModel,
)
from gatewise.lab.judge import Judge
from gatewise.lab.kept import load_training_state, training_state
from gatewise.lab.objective import Source, draw, loss_and_errors, numbers

CLIP = 1.0  # largest norm of a gradient
POINTS = 200  # of a curve, about


class Learner:
    """Adam with clipped gradients on the task's own stream of sequences.

    Args:
        task, criterion: what to learn, and when it is learnt.
        method: a name in MODELS.
        candidate: the configuration.
        seed: of weights and data.
        batch: sequences per update.
        limit: most sequences: the step falls to zero towards it, along a cosine.
    """

    def __init__(
        self,
        task: Source,
        criterion: Criterion,
        method: str,
        candidate: Candidate,
        seed: int,
        batch: int,
        limit: int,
    ) -> None:
        self.task, self.candidate, self.batch, self.limit = task, candidate, batch, limit
        self.seed, self.regulariser = seed, candidate.extra if method == "pascanu" else 0.0
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = MODELS[method](task, candidate)
        self.adam = torch.optim.Adam(self.model.parameters(), candidate.rate)
        self.judge = Judge(criterion)
        self.solved = False
        self.curve: list[tuple[int, float]] = []

    def step(self) -> None:
        """Draw a batch, predict, judge, learn."""
        number = self.judge.sequences
        # The kernel's seeds have 32 bits per stream; the data of a trial is a stream of its own.
        given = draw(self.task, self.batch, self.seed % 2**31, number)
        x = numbers(self.task, given)
        output = self.model(x, given.lengths)
        loss, errors = loss_and_errors(self.task, output, given)
        self.solved = self.judge.see(errors)
        every = max(1, self.limit // self.batch // POINTS)
        if (number // self.batch) % every == 0 or self.solved:
            self.curve.append((self.judge.sequences, self.judge.error))
        if self.solved:
            return
        self.adam.zero_grad()
        if self.regulariser:
            assert isinstance(self.model, RecurrentModel)
            loss = loss + self.regulariser * vanishing(self.model, loss, given.lengths)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        share = min(1.0, number / self.limit)
        for group in self.adam.param_groups:
            group["lr"] = (
                self.candidate.rate * 0.5 * (1 + float(torch.tensor(share).mul(torch.pi).cos()))
            )
        self.adam.step()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Everything training goes on from."""
        found = training_state("model", self.model, self.adam, self.judge)
        found["curve"] = torch.tensor(self.curve, dtype=torch.float64).view(-1, 2)
        found["solved"] = torch.tensor(self.solved)
        return found

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """See `state_dict`."""
        load_training_state(state, "model", self.model, self.adam, self.judge)
        self.curve = [(int(n), float(e)) for n, e in state["curve"].tolist()]
        self.solved = bool(state["solved"])


def vanishing(model: RecurrentModel, loss: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How far errors shrink or grow on their way back, to be made small.

    Ω = Σ_t (|δ_{t+1} ∂h_{t+1}/∂h_t| / |δ_{t+1}| - 1)², δ_t = ∂loss/∂h_t, for h = tanh(…); as in
    the paper only the explicit U of ∂h_{t+1}/∂h_t is differentiated. Source: Pascanu, Mikolov &
    Bengio, On the difficulty of training recurrent neural networks, 2013, eq. 9-10.
    """
    h = model.seen
    assert h is not None
    u = model.layer.get_parameter("weight_hh_l0")
    [direct] = torch.autograd.grad(loss, h, retain_graph=True)
    slope = 1 - h.detach().square()  # [T, B, H]
    after, terms = torch.zeros_like(direct[0]), []
    for t in range(len(h) - 1, 0, -1):
        after = direct[t] + after
        through = after * slope[t]
        back = through @ u  # the one product that is differentiated
        norm = after.norm(dim=1)
        live = norm > 1e-20
        ratio = back[live].norm(dim=1) / norm[live]
        terms.append((ratio - 1).square().sum())
        after = back.detach()
    return torch.stack(terms).sum() / lengths.sum()
