"""How to differentiate is an object handed over, not a property of a layer."""

from gatewise.learning.data import Chunk, Chunks, packed_chunks, stream_chunks, token_chunks
from gatewise.learning.online import OnlineLearner
from gatewise.learning.prequential import Prequential, prequential
from gatewise.learning.rtrl import DenseTraces
from gatewise.learning.rules import BPTT, RTRL, HDetach, Part, Rule, Rule1997, TruncatedBPTT
from gatewise.learning.traces import ForwardTraces

__all__ = [
    "BPTT",
    "RTRL",
    "Chunk",
    "Chunks",
    "DenseTraces",
    "ForwardTraces",
    "HDetach",
    "OnlineLearner",
    "Part",
    "Prequential",
    "Rule",
    "Rule1997",
    "TruncatedBPTT",
    "packed_chunks",
    "prequential",
    "stream_chunks",
    "token_chunks",
]
