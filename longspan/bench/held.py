"""Memory that a process holds besides its model, measured in one of its own: `python -m longspan.bench.held FOLDER`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil

from longspan.errors import LongspanError


def measure(folder: Path) -> int:
    """Bytes that a process holds once it has read and answered with the model in `folder`, without that model."""
    done = subprocess.run(
        [sys.executable, "-m", "longspan.bench.held", str(folder)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise LongspanError(f"calibration: the process that measures memory ended with {done.returncode}")
    return int(json.loads(done.stdout.splitlines()[-1])["bytes"])


def main() -> None:
    from longspan.engine.llm import LLM

    llm = LLM(sys.argv[1])
    model = sum(x.nbytes for x in llm.scheduler.forward.model.parameters())  # type: ignore[attr-defined]
    llm.generate([1] * 64, max_new_tokens=4, ignore_eos=True)
    # not its peak, which it reached while the model was loaded: what was needed for that is free again
    held = psutil.Process().memory_info().rss
    print(json.dumps({"bytes": held - model - llm.pool.peak_bytes}), flush=True)


if __name__ == "__main__":
    main()
