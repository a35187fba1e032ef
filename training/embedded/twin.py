"""A trained checkpoint in another shape, from which training goes on."""

from __future__ import annotations

from pathlib import Path

import torch
from net import Block, Form, Net
from safetensors.torch import load_file
from torch import Tensor


@torch.no_grad()
def twin(folder: Path, source: Form, form: Form) -> Net:
    """The checkpoint in `folder`, which has the shape `source`, as a network of the shape `form`.

    Both differ in KV heads, the MLP's width and windows at most. More KV heads repeat those there are, which changes
    nothing; fewer are the mean of those they replace (GQA, https://arxiv.org/abs/2305.13245). A narrower MLP keeps the
    neurons with the largest weights, a wider one gets such as do nothing yet. Windows change no weight.
    """
    net, weights = Net(form), load_file(folder / "model.safetensors")
    net.embedding.copy_(weights["model.embed_tokens.weight"])
    net.last.copy_(weights["model.norm.weight"])
    for index, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        layer = {
            name.removeprefix(f"model.layers.{index}.").removesuffix(".weight"): value.float()
            for name, value in weights.items()
            if name.startswith(f"model.layers.{index}.")
        }
        k, v = (_heads(layer[f"self_attn.{name}_proj"], source, form) for name in "kv")
        block.qkv.copy_(torch.cat((layer["self_attn.q_proj"], k, v)))
        block.out.copy_(layer["self_attn.o_proj"])
        gate, up, down = _neurons(block, layer["mlp.gate_proj"], layer["mlp.up_proj"], layer["mlp.down_proj"])
        block.gate_up.copy_(torch.cat((gate, up)))
        block.down.copy_(down)
        block.before_attention.copy_(layer["input_layernorm"])
        block.before_mlp.copy_(layer["post_attention_layernorm"])
    return net


def _heads(weight: Tensor, source: Form, form: Form) -> Tensor:
    """Keys' or values' weights [KV heads · D, hidden] for as many heads as `form` has."""
    heads = weight.view(source.kv_heads, form.head_dim, -1)
    if form.kv_heads >= source.kv_heads:
        heads = heads.repeat_interleave(form.kv_heads // source.kv_heads, 0)
    else:
        heads = heads.unflatten(0, (form.kv_heads, -1)).mean(1)
    return heads.flatten(0, 1)


def _neurons(block: Block, gate: Tensor, up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights [n, hidden], [n, hidden] and [hidden, n] of as many neurons as the block has."""
    wanted, had = block.form.mlp, gate.shape[0]
    if wanted <= had:
        size = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
        best = size.topk(wanted).indices.sort().values
        return gate[best], up[best], down[:, best]
    fresh_gate, fresh_up = (part[: wanted - had] for part in block.gate_up.chunk(2))
    silent = torch.zeros(down.shape[0], wanted - had)
    return torch.cat((gate, fresh_gate)), torch.cat((up, fresh_up)), torch.cat((down, silent), 1)
