"""longspan, with any of the engine's options, as in --options "--format int8 --select sketch:pages=8"."""

from __future__ import annotations

import shlex

import common
import torch

from longspan import LLM
from longspan.bench.clock import decode, read


def settings(text: str) -> dict[str, int | str]:
    """The arguments of LLM that these words give."""
    words = shlex.split(text)
    pairs = zip(words[::2], words[1::2], strict=True)
    return {name.lstrip("-").replace("-", "_"): int(x) if x.isdecimal() else x for name, x in pairs}


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--options", default="", help="the engine's options, as longspan run takes them")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    llm = LLM(given.model, rows=max(given.batch, 1), **settings(given.options))
    prompts = common.prompts(given)
    for text in read(llm, [prompts[0][:64]])[0]:
        decode(llm, [text], 2)
        llm.scheduler.drop(text)
    texts, prefill = read(llm, prompts, given.decode + 2)
    common.tell(prefill, decode(llm, texts, given.decode + 1, common.NEXT)[1:])


if __name__ == "__main__":
    main()
