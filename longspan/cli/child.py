"""A command of longspan in a process of its own, so that its memory is its own and goes with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence as Seq
from typing import Any

from longspan import errors

INTERRUPTED = 130


def run(args: Seq[str]) -> dict[str, Any]:
    """What the command prints with --json. Progress and warnings go to this process's standard error. Raises what was
    raised there, DoesNotFit where the system ended it, KeyboardInterrupt where it was interrupted."""
    done = subprocess.run(
        [sys.executable, "-m", "longspan", *args, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        raise errors.DoesNotFit(
            "the system ended the process, most likely for its memory; give a shorter length, fewer texts with "
            "--batch, or less --memory"
        )
    if done.returncode in (INTERRUPTED, -signal.SIGINT):
        raise KeyboardInterrupt
    return told(done.stdout, done.returncode)


def told(out: str, code: int) -> dict[str, Any]:
    """The JSON object that was printed. Raises the error that it tells of."""
    try:
        value = json.loads(out)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise errors.LongspanError(f"the process of an evaluation ended with {code} and told nothing")
    if "error" in value:
        kind = getattr(errors, value["error"]["type"], errors.LongspanError)
        raise kind(value["error"]["message"])
    return value
