"""Models made of recurrent layers, their data and their training."""

from gatewise.models.checkpoint import Checkpoint, CheckpointError, load_checkpoint
from gatewise.models.corpus import Corpus, Streams, read_corpus
from gatewise.models.language_model import LanguageModel, LanguageModelConfig
from gatewise.models.language_task import LanguageOptions, load_language_model
from gatewise.models.sampling import Sampling
from gatewise.models.saved import Saved, load, load_settings
from gatewise.models.settings import Settings
from gatewise.models.stepper import TokenStepper
from gatewise.models.task import Loss, Predictor, Source, Task
from gatewise.models.training import Progress, Trainer, TrainingError
from gatewise.models.vocabulary import Vocabulary

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Corpus",
    "LanguageModel",
    "LanguageModelConfig",
    "LanguageOptions",
    "Loss",
    "Predictor",
    "Progress",
    "Sampling",
    "Saved",
    "Settings",
    "Source",
    "Streams",
    "Task",
    "TokenStepper",
    "Trainer",
    "TrainingError",
    "Vocabulary",
    "load",
    "load_checkpoint",
    "load_language_model",
    "load_settings",
    "read_corpus",
]
