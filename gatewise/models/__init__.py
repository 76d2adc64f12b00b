"""Models made of recurrent layers, their data and their training."""

from gatewise.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from gatewise.models.corpus import Corpus, Streams, read_corpus
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.sampling import Sampling
from gatewise.models.stepper import TokenStepper
from gatewise.models.training import (
    Progress,
    Score,
    Settings,
    Trainer,
    TrainingError,
    load_language_model,
    load_settings,
)
from gatewise.models.vocabulary import Vocabulary

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Corpus",
    "LanguageModel",
    "LanguageModelConfig",
    "Progress",
    "Sampling",
    "Score",
    "Settings",
    "Streams",
    "TokenStepper",
    "Trainer",
    "TrainingError",
    "Vocabulary",
    "load_checkpoint",
    "load_language_model",
    "load_settings",
    "read_corpus",
]
