"""Where a figure comes from: the command, and the state of longspan's own sources."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence as Seq
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
_SECONDS = 10


def command(args: Seq[str]) -> str:
    """Of `longspan`'s arguments, the line that does the same in a shell."""
    return shlex.join(("longspan", *args))


def revision(folder: Path = PACKAGE) -> str | None:
    """The git revision that longspan's sources are at, with "+changes" where files of it differ from that; None where
    they are in no repository, as when the package was installed from an archive, or there is no git."""
    if _git(folder, "ls-files", "--error-unmatch", ".") is None:  # a repository around them is not theirs
        return None
    head, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "--", ".")
    if head is None or changes is None:
        return None
    return head + ("+changes" if changes else "")


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
