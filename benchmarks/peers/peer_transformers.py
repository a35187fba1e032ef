"""transformers: SDPA, bfloat16, a DynamicCache, the prompt in chunks. Runs in longspan's environment."""

from __future__ import annotations

import time

import common
import torch
from transformers import AutoModelForCausalLM, DynamicCache


def main() -> None:
    given = common.parser(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16, attn_implementation="sdpa").eval()
    rows = torch.tensor(common.prompts(given))
    width = max(common.CHUNK // given.batch, 1)
    token = torch.full((given.batch, 1), common.NEXT)
    with torch.inference_mode():
        model(rows[:, :64], logits_to_keep=1)
        cache = DynamicCache()
        began = time.perf_counter()
        for first in range(0, given.context, width):
            model(rows[:, first : first + width], past_key_values=cache, logits_to_keep=1)
        prefill, steps = time.perf_counter() - began, []
        for _ in range(given.decode + 1):
            began = time.perf_counter()
            token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
            steps.append(time.perf_counter() - began)
    common.tell(prefill, steps[1:])


if __name__ == "__main__":
    main()
