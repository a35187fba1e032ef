"""Which kernels serve: the compiled ones where they are, torch without them, and what is said of it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import pytest

from longspan.errors import UsageError
from longspan.kernels import BACKENDS, backend, cpu, paged
from longspan.kernels.cpu import native


def test_auto_takes_the_compiled_ones_where_they_are():
    assert backend("auto") is (paged.attend if cpu.NATIVE is None else cpu.attend)
    assert ("cpu" in BACKENDS) == (cpu.NATIVE is not None)


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )


def test_without_compiled_kernels_torch_serves_and_says_so():
    code = (
        "from longspan.kernels import BACKENDS, backend, cpu, paged; from longspan.errors import UsageError\n"
        "assert backend('auto') is paged.attend and list(BACKENDS) == ['torch', 'reference'] and cpu.levels() == []\n"
        "try: backend('cpu')\nexcept UsageError as error: print(error)"
    )
    done = run(code, LONGSPAN_KERNELS="none", TRITON_INTERPRET="0")
    assert done.stderr == ""
    assert "'cpu' is not here (LONGSPAN_KERNELS=none switches them off)" in done.stdout


def test_not_built_is_no_error_and_broken_is(monkeypatch):
    monkeypatch.delenv(native.VARIABLE, raising=False)

    def fail(error: ImportError):
        def load(_name: str):
            raise error

        monkeypatch.setattr(importlib, "import_module", load)

    fail(ModuleNotFoundError("no", name=native.NAME))
    assert native._load() is None
    fail(ModuleNotFoundError("no", name="other"))
    with pytest.raises(ModuleNotFoundError, match="no"):
        native._load()
    fail(ImportError("undefined symbol: x"))
    with pytest.raises(ImportError, match=r"undefined symbol: x: the compiled kernels .* install longspan again"):
        native._load()


@pytest.mark.skipif(cpu.NATIVE is None, reason=cpu.why_none())
def test_an_instruction_set_that_is_not_here_is_refused():
    with pytest.raises(UsageError, match=r"'sse9' was not compiled or does not run here; known: none, "):
        cpu.level("sse9")
    code = "from longspan.kernels import cpu; print(cpu.level())"
    assert run(code, LONGSPAN_KERNELS=cpu.levels()[0]).stdout == "0\n"
