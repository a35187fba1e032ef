"""Each row in a process of its own, so that its peak memory is its own: `python -m longspan.bench.child`."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

from longspan import errors

if TYPE_CHECKING:
    from longspan.bench.measure import Case, Row


def run(case: Case) -> Row:
    """Measure a case in a new process. Raises what was raised there; its warnings are given here."""
    from longspan.bench.measure import Row

    threads = {name: str(case.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-m", "longspan.bench.child"],
        input=json.dumps(dataclasses.asdict(case)),
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | threads,
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        raise errors.DoesNotFit(
            f"{case.plan} at {case.context:,} tokens: the system ended the process, most likely for its memory; give a "
            "smaller --context, --batch or --memory"
        )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        raise errors.LongspanError(f"{case.plan} at {case.context:,} tokens: the process ended with {done.returncode}")
    told: dict[str, Any] = json.loads(lines[-1])
    for text in told.get("warnings", ()):
        warnings.warn(text, stacklevel=2)
    if "error" in told:
        kind = getattr(errors, told["error"], errors.LongspanError)
        raise kind(told["message"])
    return Row(**told["row"])


def main() -> None:
    """Read a case from standard input, and write what came of it. An interrupt is told by the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from longspan.bench.measure import Case, measure

    case = Case(**json.load(sys.stdin))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        try:
            told: dict[str, Any] = {"row": dataclasses.asdict(measure(case))}
        except errors.LongspanError as error:
            told = {"error": type(error).__name__, "message": str(error)}
        except Exception as error:  # told in one line, as `longspan.cli.main` does
            told = {"error": "LongspanError", "message": f"unexpected {type(error).__name__}: {error}"}
    told["warnings"] = list(dict.fromkeys(" ".join(str(one.message).split()) for one in caught))
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
