"""The exceptions a user can cause.

::

    FaeError
    ├── RecipeError      the recipe or the command line: unknown key, wrong type, value out of range
    ├── LogError         the raw click log: missing, empty, truncated, a field that does not parse
    ├── ArtifactError    a stage's folder: missing, of another parent, of another format, damaged
    ├── BudgetError      the GPU memory budget: too small for the staging ring
    ├── DeviceError      the requested device is not there
    ├── EngineError      workers that cannot be reached, are lost again and again, or do not fit together
    ├── RankError        ranks of one training that differ, are late, or are gone
    └── TrainingError    training cannot continue: the loss is no longer a number

Every message says what happened with its values, what was expected, and the next command to type. The command
line prints it as one line and exits with status 2. Any other exception is a defect of FAE.
"""

from __future__ import annotations


class FaeError(Exception):
    """Base class of every error that a user can cause."""


class RecipeError(FaeError):
    """The recipe or the command line requests something impossible."""


class LogError(FaeError):
    """The raw click log cannot be read as the recipe describes it."""


class ArtifactError(FaeError):
    """A stage's artifact is missing, stale, damaged or of another format."""


class BudgetError(FaeError):
    """The GPU memory budget is too small for what must be in it."""


class DeviceError(FaeError):
    """The requested device is not available."""


class EngineError(FaeError):
    """Workers cannot be reached, are lost again and again, or do not fit together."""


class RankError(FaeError):
    """Ranks of one training differ, wait for one that is late, or have lost one."""


class TrainingError(FaeError):
    """Training cannot continue."""
