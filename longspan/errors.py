"""Every error that longspan raises on purpose, and the exit code the command line gives it.

    LongspanError            1   something failed while running
    ├── UsageError           2   an option, a value or a combination that has no meaning
    ├── ModelError           3   the model cannot be loaded
    │   └── UnsupportedModel 3   a family or a feature that the engine does not run; lists those it does
    ├── DoesNotFit           3   the work needs more memory or context than the plan allows
    ├── NumericalError       1   a layer produced NaN or Inf
    └── StoreError           5   a data store is damaged, locked or foreign
        └── DamagedPage      5   one record of it is; the others can be read

A message says what is wrong, where, and the way out. It never holds a traceback.
"""

from __future__ import annotations


class LongspanError(Exception):
    """The root of the tree; catch this to catch every deliberate failure."""

    exit_code: int = 1


class UsageError(LongspanError, ValueError):
    """An option, a value or a combination of options that has no meaning."""

    exit_code = 2


class ModelError(LongspanError):
    """A model folder that is missing, damaged, unsafe or contradicts itself."""

    exit_code = 3


class UnsupportedModel(ModelError):
    """A model whose family or features the engine does not run."""


class DoesNotFit(LongspanError, MemoryError):
    """The request needs more memory or context than the plan allows."""

    exit_code = 3


class NumericalError(LongspanError, ArithmeticError):
    """A layer's output holds NaN or Inf."""


class StoreError(LongspanError):
    """A data store is damaged, locked by another process or made by another model."""

    exit_code = 5


class DamagedPage(StoreError):
    """A record of a data store that cannot be read back; what it held has to be made again."""
