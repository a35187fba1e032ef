"""llama.cpp through llama-cpp-python's low-level functions, flash attention on. Runs in the peers' environment."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence

import common
import llama_cpp as llama
import numpy as np

KINDS = {"f16": llama.GGML_TYPE_F16, "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0}


@llama.llama_log_callback
def _silent(level: int, text: bytes, data: object) -> None: ...


def evaluate(context: object, tokens: Sequence[tuple[int, int, int]], logits: bool) -> None:
    """Run one batch of (id, position, sequence)."""
    batch = llama.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, (token, position, sequence) in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.logits[i] = logits
    code = llama.llama_decode(context, batch)
    llama.llama_synchronize(context)
    llama.llama_batch_free(batch)
    if code:
        raise SystemExit(f"llama_decode: {code}")


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--kv", choices=KINDS, default="f16", help="how keys and values are stored")
    given = parser.parse_args()
    llama.llama_log_set(_silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(given.model.encode(), llama.llama_model_default_params())
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    settings = llama.llama_context_default_params()
    room = -(-(given.context + given.decode + 1) // 256) * 256
    settings.n_ctx, settings.n_seq_max = given.batch * room, given.batch
    settings.n_batch, settings.n_ubatch = common.CHUNK, 512
    settings.n_threads = settings.n_threads_batch = given.threads
    settings.type_k = settings.type_v = KINDS[given.kv]
    settings.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit("llama.cpp refused these settings")
    prompts = common.prompts(given)
    evaluate(context, [(token, i, 0) for i, token in enumerate(prompts[0][:64])], False)
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    began = time.perf_counter()
    for sequence, ids in enumerate(prompts):
        tokens = [(token, i, sequence) for i, token in enumerate(ids)]
        for first in range(0, len(tokens), common.CHUNK):
            evaluate(context, tokens[first : first + common.CHUNK], False)
    prefill, steps = time.perf_counter() - began, []
    tokens = [common.NEXT] * given.batch
    for step in range(given.decode + 1):
        began = time.perf_counter()
        evaluate(context, [(token, given.context + step, i) for i, token in enumerate(tokens)], True)
        rows = (np.ctypeslib.as_array(llama.llama_get_logits_ith(context, i), (vocab,)) for i in range(given.batch))
        tokens = [int(row.argmax()) for row in rows]
        steps.append(time.perf_counter() - began)
    common.tell(prefill, steps[1:])


if __name__ == "__main__":
    main()
