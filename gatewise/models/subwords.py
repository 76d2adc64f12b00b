"""Pieces of words, learned by SentencePiece from the text itself."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gatewise.models.extras import require
from gatewise.models.translator import BEGIN, END, PAD


class Subwords:
    """A subword vocabulary (Kudo & Richardson, 2018): any text to numbers and back.

    Raises ValueError where `model` is not one that SentencePiece wrote, ModuleNotFoundError
    where the library is missing.
    """

    def __init__(self, model: bytes) -> None:
        library = require("sentencepiece", "nlp", "subwords")
        try:
            self._processor = library.SentencePieceProcessor(model_proto=model)
            numbers = (
                self._processor.pad_id(),
                self._processor.bos_id(),
                self._processor.eos_id(),
            )
        except (RuntimeError, OSError) as error:
            raise ValueError(f"the subwords are damaged: {error}") from None
        if numbers != (PAD, BEGIN, END):
            raise ValueError(f"the subwords are damaged: their marks are {numbers}")
        self._model = model

    @classmethod
    def build(cls, lines: Iterable[str], size: int) -> Subwords:
        """The about `size` pieces that tell the lines best (a unigram model)."""
        library = require("sentencepiece", "nlp", "subwords")
        written = io.BytesIO()
        try:
            library.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=written,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                pad_id=PAD,
                bos_id=BEGIN,
                eos_id=END,
                unk_id=END + 1,
                num_threads=1,  # the same pieces every time
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(f"vocabulary {size} does not fit the text: {error}") from None
        return cls(written.getvalue())

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode(list(ids))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each piece as it is, a space as ▁."""
        return [self._processor.id_to_piece(k) for k in ids]

    def to_json(self) -> str:
        return base64.b64encode(self._model).decode()

    @classmethod
    def from_json(cls, data: Any) -> Subwords:
        """The subwords that `to_json` wrote; ValueError for anything else."""
        try:
            return cls(base64.b64decode(data, validate=True))
        except (TypeError, binascii.Error) as error:
            raise ValueError(f"the subwords are damaged: {error}") from None
