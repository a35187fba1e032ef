"""The compiled module, where there is one, and which of its versions runs.

LONGSPAN_KERNELS in the environment: the name of an instruction set to use in place of the best one that this
processor has, or `none`, as if nothing had been compiled.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from longspan.errors import UsageError

VARIABLE = "LONGSPAN_KERNELS"
NAME = "longspan.kernels.cpu._native"


def _load() -> ModuleType | None:
    """None where nothing was compiled. Raises ImportError when there is a module that does not load."""
    if os.environ.get(VARIABLE) == "none":
        return None
    try:
        return importlib.import_module(NAME)
    except ModuleNotFoundError as error:
        if error.name != NAME:
            raise
        return None
    except ImportError as error:
        raise ImportError(
            f"{error}: the compiled kernels ({NAME}) were built but do not load here; install longspan again, or set "
            f"{VARIABLE}=none to do without them"
        ) from error


NATIVE = _load()


PAIRS: bool = NATIVE is not None and NATIVE.pairs()
"""Whether this processor multiplies bfloat16 numbers in pairs faster than float32 ones; it was tried just now."""


def levels() -> list[str]:
    """The instruction sets that were compiled and that this processor has, the best last."""
    return [] if NATIVE is None else list(NATIVE.levels())


def level(name: str | None = None) -> int:
    """Number of the instruction set called `name`; None: what the environment asks for, else the best one.

    Raises UsageError for one that was not compiled or that this processor lacks.
    """
    known = levels()
    asked = name or os.environ.get(VARIABLE)
    if asked is None:
        return len(known) - 1
    if asked not in known:
        raise UsageError(
            f"{VARIABLE}: {asked!r} was not compiled or does not run here; known: none, {', '.join(known)}"
        )
    return known.index(asked)


def why_none() -> str:
    """Why there are no compiled kernels."""
    if os.environ.get(VARIABLE) == "none":
        return f"{VARIABLE}=none switches them off"
    return "not compiled: installing longspan found no C++17 compiler, or it failed; `pip install -v .` shows why"
