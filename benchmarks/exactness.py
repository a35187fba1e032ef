"""How far float32 logits of the embedded model are from float64 ones: the table in docs/measurements.md.

    python benchmarks/exactness.py [--tokens 1000]

The truth is transformers in float64 with angles formed in float64.
"""

from __future__ import annotations

import argparse
import copy
from pydoc_data.topics import topics

import torch
from transformers import AutoModelForCausalLM

from longspan import LLM
from longspan.engine.llm import EMBEDDED


def exact_angles(model: torch.nn.Module) -> torch.nn.Module:
    """The model with cos and sin formed in float64 from its base."""
    rotary = model.model.rotary_emb
    dim, theta = 2 * rotary.inv_freq.numel(), model.config.rope_parameters["rope_theta"]
    inv_freq = theta ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        turned = position_ids[..., None].double() * inv_freq
        turned = torch.cat((turned, turned), -1)
        return turned.cos().to(x.dtype), turned.sin().to(x.dtype)

    rotary.forward = forward
    return model


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1000)
    tokens = parser.parse_args().tokens
    llm = LLM(dtype="float32")
    ids = llm.encode("\n".join(topics.values()))[:tokens]
    theirs = AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32, attn_implementation="eager").eval()
    row = torch.tensor([ids])
    truth = exact_angles(copy.deepcopy(theirs).double())(row, use_cache=False).logits[0]
    found = {
        "transformers": theirs(row, use_cache=False).logits[0],
        "transformers, exact angles": exact_angles(copy.deepcopy(theirs))(row, use_cache=False).logits[0],
        "longspan, one shot": llm.logits(ids),
        "longspan, chunks of 64": llm.logits(ids, chunk=64),
        "longspan, token by token": llm.logits(ids, chunk=1),
    }
    print(f"{len(ids):,} tokens, largest logit {truth.abs().max():.1f}; largest error:")
    for name, logits in found.items():
        print(f"  {name:<28} {(logits.double() - truth).abs().max():.1e}")


if __name__ == "__main__":
    main()
