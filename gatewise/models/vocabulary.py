"""Text to numbers and back: a vocabulary of characters or of words.

N = tokens of a text, V = size of the vocabulary. Token 0 is the unknown token.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

UNKNOWN = "\N{REPLACEMENT CHARACTER}"
LEVELS = ("char", "word", "space")
# A word takes the one space before it along, a line break the trailing space, so joining the
# tokens gives the text back. `<unk>` and `<eos>` of prepared corpora stay whole.
_WORD = re.compile(r" ?\n| ?<\w+>| ?\w+(?:['’]\w+)*| ?[^\w\s]|\s")
_PREPARED = re.compile(r"\n|(\S+)[^\S\n]?")  # a word with what stands behind it, if no line ends
_CODE_POINTS = 0x110000


@dataclass(frozen=True)
class Encoded:
    """A text as tokens, with what it takes to count bits per character."""

    ids: torch.Tensor  # [N] int64
    characters: int  # in the text that the tokens 1…N-1 stand for: what is to be predicted
    spelled_bits: float  # for the unknown ones of these: 8 bits per UTF-8 byte

    def figures(self, nats: float) -> dict[str, float]:
        """Of a model that gives all its tokens but the first e^-nats.

        The perplexity is per token, the unknown token being one like any other; the bits per
        character pay for spelling it.
        """
        bits = (nats / math.log(2) + self.spelled_bits) / self.characters
        perplexity = math.exp(min(700.0, nats / (len(self.ids) - 1)))
        return {"bits_per_character": bits, "perplexity": perplexity}


class Vocabulary:
    """The tokens a model knows, at the level of characters or of words.

    The level `word` splits punctuation off; `space` takes what stands between white space, for
    corpora that are split already, a line break being a token.

    A character vocabulary built with `min_count=1` is lossless on the text it was built from.
    What is not in the vocabulary becomes the unknown token.

    >>> v = Vocabulary.build("to be or not", "char")
    >>> v.decode(v.encode("to be"))
    'to be'
    >>> v.encode("é").tolist(), v.unknown("toé")
    ([0], ['é'])

    Raises ValueError for an unknown level or a token named twice.
    """

    def __init__(self, level: str, tokens: Sequence[str]) -> None:
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
        if not tokens or tokens[0] != UNKNOWN:
            raise ValueError("the first token must be the unknown token")
        if level == "char" and any(len(t) != 1 for t in tokens):
            raise ValueError("a character vocabulary must hold single characters")
        self.level, self.tokens = level, tuple(tokens)
        self._id = {t: k for k, t in enumerate(self.tokens)}
        if len(self._id) != len(self.tokens):
            raise ValueError("a vocabulary must hold every token once")
        self._lookup: np.ndarray | None = None

    @classmethod
    def build(
        cls, text: str, level: str, max_size: int | None = None, min_count: int = 1
    ) -> Vocabulary:
        """The tokens that occur in `text` at least `min_count` times.

        With `max_size`, the most frequent ones. Sorted, so that a text has one vocabulary.
        """
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
        if max_size is not None and max_size < 2:
            raise ValueError(f"max_size must be at least 2, got {max_size}")
        counts = Counter(_split(text, level))
        counts.pop(UNKNOWN, None)
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        kept = [
            t for t, n in ranked[: None if max_size is None else max_size - 1] if n >= min_count
        ]
        return cls(level, [UNKNOWN, *sorted(kept)])

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Vocabulary)
            and self.level == other.level
            and self.tokens == other.tokens
        )

    def __hash__(self) -> int:
        return hash((self.level, self.tokens))

    def encode(self, text: str) -> torch.Tensor:
        """Token numbers, int64 [N]."""
        if self.level == "char":
            return torch.from_numpy(self._table()[_code_points(text)])
        unknown = self._id[UNKNOWN]
        return torch.tensor(
            [self._id.get(t, unknown) for t in _split(text, self.level)], dtype=torch.int64
        )

    def decode(self, ids: Iterable[int] | torch.Tensor) -> str:
        """The text of `ids`; the unknown token becomes U+FFFD."""
        numbers = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        return "".join(self.tokens[k] for k in numbers)

    def unknown(self, text: str) -> list[str]:
        """What `text` holds that the vocabulary does not, each once, in order."""
        missing = (t for t in _split(text, self.level) if t not in self._id)
        return list(dict.fromkeys(missing))

    def measure(self, text: str) -> Encoded:
        """`text` encoded, with its characters and the cost of spelling its unknown tokens."""
        pieces = iter(_pieces(text, self.level))
        _, first = next(pieces, ("", ""))
        missing = (piece for token, piece in pieces if token not in self._id)
        spelled = sum(len(piece.encode("utf-8", "surrogatepass")) for piece in missing)
        return Encoded(self.encode(text), len(text) - len(first), 8.0 * spelled)

    def _table(self) -> np.ndarray:
        """Code point -> token number."""
        if self._lookup is None:
            self._lookup = np.zeros(_CODE_POINTS, dtype=np.int64)
            for k, t in enumerate(self.tokens):
                self._lookup[ord(t)] = k
        return self._lookup

    def to_json(self) -> dict[str, Any]:
        return {"level": self.level, "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, data: Any) -> Vocabulary:
        """The vocabulary that `to_json` wrote; ValueError for anything else."""
        if not isinstance(data, dict) or not isinstance(data.get("tokens"), list):
            raise ValueError("a vocabulary must be an object with a list of tokens")
        if not all(isinstance(t, str) for t in data["tokens"]):
            raise ValueError("the tokens of a vocabulary must be strings")
        return cls(data.get("level", ""), data["tokens"])


def _split(text: str, level: str) -> Iterable[str]:
    return text if level == "char" else (token for token, _ in _pieces(text, level))


def _pieces(text: str, level: str) -> Iterable[tuple[str, str]]:
    """The tokens, each with what it stands for in the text."""
    if level == "char":
        return zip(text, text, strict=True)
    if level == "word":
        return ((m.group(), m.group()) for m in _WORD.finditer(text))
    # A word takes one space behind it along, whatever stood there: joining gives readable text.
    return (("\n" if m[1] is None else m[1] + " ", m.group()) for m in _PREPARED.finditer(text))


def _code_points(text: str) -> np.ndarray:
    # surrogatepass: an undecodable byte of a command line arrives as a lone surrogate.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
