"""OpenVINO GenAI's continuous batching pipeline (LLMPipeline runs on it too). Runs in the peers' environment."""

from __future__ import annotations

import time

import common
import numpy as np
import openvino as ov
import openvino_genai as genai

BLOCK = 32
"""Tokens of a block of its cache on a CPU."""


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--kv", choices=("f16", "u8", "u4"), default="f16", help="how keys and values are stored")
    given = parser.parse_args()
    settings = genai.SchedulerConfig()
    settings.num_kv_blocks = given.batch * (-(-(given.context + given.decode + 2) // BLOCK) + 2)
    settings.max_num_batched_tokens, settings.enable_prefix_caching = common.CHUNK, False
    options = {"INFERENCE_NUM_THREADS": given.threads, "KV_CACHE_PRECISION": given.kv}
    pipeline = genai.ContinuousBatchingPipeline(given.model, settings, "CPU", options)

    def read(prompts: list[list[int]], tokens: int) -> tuple[float, list[object]]:
        """Add the prompts and take steps until each has its first new token: seconds, and what must not be let go of,
        or its request ends."""
        config = genai.GenerationConfig(max_new_tokens=tokens, min_new_tokens=tokens, ignore_eos=True)
        began = time.perf_counter()
        handles = [
            pipeline.add_request(i, ov.Tensor(np.array([ids], dtype=np.int64)), config) for i, ids in enumerate(prompts)
        ]
        while not all(handle.can_read() for handle in handles):
            pipeline.step()
        return time.perf_counter() - began, handles

    prompts = common.prompts(given)
    _, held = read([prompts[0][:64]], 2)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    # those read first go on while others are read, so they get more tokens than are timed
    ahead = -(-given.batch * given.context // common.CHUNK) + given.batch
    (prefill, held), steps = read(prompts, given.decode + 1 + ahead), []
    for _ in range(given.decode + 1):
        assert pipeline.has_non_finished_requests()
        began = time.perf_counter()
        pipeline.step()
        steps.append(time.perf_counter() - began)
    while pipeline.has_non_finished_requests():
        pipeline.step()
    assert len(held) == given.batch
    common.tell(prefill, steps[1:])


if __name__ == "__main__":
    main()
