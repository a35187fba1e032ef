"""A Llama checkpoint as a GGUF file without a vocabulary, for llama.cpp. Runs in the peers' environment.

python make_gguf.py FOLDER FILE.gguf --weights f16|q8_0|q4_0
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors import safe_open

KINDS = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def renamed(name: str) -> str:
    """What llama.cpp calls a tensor of a Hugging Face checkpoint."""
    name = name.removesuffix(".weight")
    inside = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", name)
    return f"blk.{inside[1]}.{INSIDE[inside[2]]}.weight" if inside else f"{OUTSIDE[name]}.weight"


def neighbours(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection [heads · D, hidden], reordered within each head: rotation turns pairs of
    neighbours in llama.cpp's Llama, and channels that are half a head apart in Hugging Face's."""
    halves = matrix.reshape(heads, 2, -1, matrix.shape[1])
    return halves.transpose(0, 2, 1, 3).reshape(matrix.shape)


def header(writer: gguf.GGUFWriter, config: dict[str, Any], file_type: int) -> None:
    """What the model is."""
    rope = config.get("rope_parameters") or config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(file_type)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--weights", choices=KINDS, default="f16")
    given = parser.parse_args()
    config = json.loads((given.folder / "config.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    kind, file_type = KINDS[given.weights]
    writer = gguf.GGUFWriter(given.file, "llama")
    header(writer, config, file_type)
    for shard in sorted(given.folder.glob("*.safetensors")):
        with safe_open(shard, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dictionary)
                numbers = tensors.get_tensor(name).to(torch.float32).numpy()
                target = renamed(name)
                count = heads.get(target.split(".")[-2])
                if count is not None:
                    numbers = neighbours(numbers, count)
                if numbers.ndim == 1:
                    writer.add_tensor(target, numbers)
                else:
                    writer.add_tensor(target, gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
