"""A cache of what a model of tokens has just read: what stood there is likelier to come again.

N = tokens of a text, T = tokens read at once, W = tokens kept, H = what the head reads of a token,
S = sharpnesses tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from gatewise.models.corpus import Streams
from gatewise.models.token_model import TokenModel
from gatewise.models.vocabulary import Encoded

WINDOW = 2000
_CHUNK = 256
_ROOM = 1 << 22  # likenesses at a time
_MOST = 1 << 20  # tokens kept
_SHARPNESS = tuple(2.0**k for k in range(-8, 6))
_SHARE = tuple(k / 50 for k in range(1, 41))


@dataclass(frozen=True)
class NeuralCache:
    """The model's own states as the keys of what followed them.

    With h_t what the head reads at step t and x_t the token there,

        p(w) = (1 - share)·softmax(V h_t + b)_w + share·Σ_i [x_{i+1} = w]·a_ti
        a_t = softmax over the last `window` steps i < t of sharpness·h_t·h_i

    Nothing is trained. Before the first step there is nothing in the cache: p is the model's.

    Source: Grave, Joulin & Usunier, Improving neural language models with a continuous cache, 2017.

    Args:
        share: of the probability that the cache has, 0 to 1.
        sharpness: θ of the source, above 0.
        window: W.
    """

    share: float
    sharpness: float
    window: int = WINDOW

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"share must be at least 0 and below 1, got {self.share}")
        if not 0 < self.sharpness < math.inf:
            raise ValueError(f"sharpness must be above 0, got {self.sharpness}")
        _check_window(self.window)


@dataclass(frozen=True)
class Cached:
    """How well a text is predicted with a cache and without, by one reading of it."""

    cache: NeuralCache
    perplexity: float
    bits_per_character: float
    without: float  # perplexity of the model alone


Tracked = Callable[[Sequence[int], str], Iterable[int]]


def _plain(items: Sequence[int], what: str) -> Iterable[int]:
    return items


def choose(
    model: TokenModel, text: torch.Tensor, window: int = WINDOW, tracked: Tracked = _plain
) -> NeuralCache:
    """The cache that predicts `text` [N] best, of 14 sharpnesses from 2^-8 to 2^5 and 40 shares.

    The text must be none that figures are told of.
    """
    own, copied, known = _read(model, text, window, _SHARPNESS, tracked)
    best = (math.inf, NeuralCache(_SHARE[0], _SHARPNESS[0], window))
    for sharpness, found in zip(_SHARPNESS, copied, strict=True):
        for share in _SHARE:
            nats = _nats(own, found, known, share)
            if nats < best[0]:
                best = (nats, NeuralCache(share, sharpness, window))
    return best[1]


def score(
    model: TokenModel, held: Encoded, cache: NeuralCache, tracked: Tracked = _plain
) -> Cached:
    """The figures of `TextPredictor.score` with the cache; the text is read as one stream."""
    own, copied, known = _read(model, held.ids, cache.window, (cache.sharpness,), tracked)
    with_it, alone = (
        held.figures(_nats(own, copied[0], known, share)) for share in (cache.share, 0.0)
    )
    return Cached(cache, **with_it, without=alone["perplexity"])


def _nats(own: torch.Tensor, copied: torch.Tensor, known: torch.Tensor, share: float) -> float:
    mixed = torch.where(known, (1 - share) * own + share * copied, own)
    return -mixed.clamp(min=5e-324).log().sum().item()


@torch.no_grad()
def _read(
    model: TokenModel,
    text: torch.Tensor,
    window: int,
    sharpness: Sequence[float],
    tracked: Tracked,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each token but the first: what the model gives it [N-1], what caches of each sharpness
    give it [S, N-1], whether there was anything in them [N-1]; fp64.
    """
    _check_window(window)
    if model.training:
        raise RuntimeError("a cache needs the model in evaluation mode: call model.eval()")
    streams, state = Streams(text, 1, max(1, min(_CHUNK, _ROOM // window))), None
    own, copied, known = [], [], []
    keys = model.head.weight.new_zeros(0, model.head.in_features)  # [W, H]
    followed = text.new_zeros(0)  # [W]
    for k in tracked(range(len(streams)), "reading"):
        inputs, targets = streams.chunk(k)
        output, state = model.hidden(inputs, state)
        read, wanted = model.projected(output)[:, 0], targets[:, 0]  # [T, H], [T]
        found = model.head(read).double().softmax(-1)
        own.append(found.gather(1, wanted[:, None])[:, 0])
        before = len(keys)
        keys, followed = torch.cat([keys, read]), torch.cat([followed, wanted])
        age = torch.arange(before, len(keys))[:, None] - torch.arange(len(keys))  # [T, W + T]
        seen = (age > 0) & (age <= window)
        same = (followed == wanted[:, None]) & seen
        likeness = (read @ keys.T).double()
        known.append(seen.any(1))
        copied.append(torch.stack([_copied(s * likeness, seen, same) for s in sharpness]))
        keys, followed = keys[-window:], followed[-window:]
    return torch.cat(own), torch.cat(copied, 1), torch.cat(known)


def _copied(likeness: torch.Tensor, seen: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """[T]: the weight on places that were followed by what is wanted."""
    weights = likeness.masked_fill(~seen, -math.inf).softmax(1)  # NaN where nothing is seen
    return weights.masked_fill(~same, 0.0).sum(1)


def _check_window(window: int) -> None:
    if isinstance(window, bool) or not isinstance(window, int):
        raise TypeError(f"window must be an int, got {window!r}")
    if not 1 <= window <= _MOST:
        raise ValueError(f"window must be between 1 and {_MOST:,}, got {window}")
