"""What every engine's script shares: arguments, prompts, and one JSON object as the result. No engine is needed."""

from __future__ import annotations

import argparse
import json
import resource
from collections.abc import Sequence

import numpy as np

CHUNK = 2048
"""Ids of prompt in one step, all sequences together, for the engines that leave it to us."""
NEXT = 5
"""The id that each sequence goes on with."""


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("model", help="file or folder of the model")
    made.add_argument("--context", type=int, default=512, help="ids of each prompt")
    made.add_argument("--batch", type=int, default=1, help="prompts, all different, which are then decoded at once")
    made.add_argument("--decode", type=int, default=16, help="steps to time, after one that is not")
    made.add_argument("--threads", type=int, default=2)
    return made


def prompts(given: argparse.Namespace) -> list[list[int]]:
    """The same random ids for every engine: `batch` lists of `context`. Ids below 300 may mean something."""
    ids = np.random.default_rng(0).integers(300, 49_000, (given.batch, given.context))
    return ids.tolist()  # type: ignore[no-any-return]


def tell(prefill: float, steps: Sequence[float]) -> None:
    """Print the result: seconds to read all prompts, seconds of each step (which gives `batch` tokens), peak memory."""
    print(json.dumps({"prefill_s": prefill, "steps_s": list(steps), "peak_bytes": peak()}), flush=True)


def peak() -> int:
    """The most bytes of memory that this process has held."""
    try:  # Linux; what getrusage says there begins with the peak of whoever started us
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
