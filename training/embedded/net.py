"""The network while it trains: the same arithmetic as transformers' Llama, arranged for two CPU cores.

Matrices that read the same input are one matrix, products are in bfloat16 (weights in float32), the
query heads of a group share one product with their keys, and logits are made only where they are asked
for. `Net.to_transformers` gives the checkpoint that everything else reads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

BLOCK = 128
"""Queries that meet their keys in one product: the keys after the block are never touched."""

LOOKING = (3, 5)
"""The layers that find the sentence which the question names, and the one that has the answer: for most the same."""


@dataclass(frozen=True, slots=True)
class Form:
    """The shape. `window`, where set, is the sliding window of every second layer."""

    vocabulary: int = 2048
    layers: int = 6
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    mlp: int = 768
    positions: int = 1024
    theta: float = 100_000.0
    window: int | None = None

    @property
    def looking(self) -> tuple[int, int]:
        """The query heads that are told where to look, in the layers `LOOKING`; of two KV heads if there are two."""
        return 0, self.heads // 2

    def window_of(self, layer: int) -> int | None:
        return self.window if layer % 2 == 0 else None


class Block(nn.Module):
    def __init__(self, form: Form, index: int) -> None:
        super().__init__()
        self.form, self.window = form, form.window_of(index)
        wide = form.heads * form.head_dim
        self.qkv = _matrix(wide + 2 * form.kv_heads * form.head_dim, form.hidden)
        self.out = _matrix(form.hidden, wide)
        self.gate_up = _matrix(2 * form.mlp, form.hidden)
        self.down = _matrix(form.hidden, form.mlp)
        self.before_attention = nn.Parameter(torch.ones(form.hidden))
        self.before_mlp = nn.Parameter(torch.ones(form.hidden))

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, looking: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The residual stream after this layer, and the looking heads' scores at positions `looking` [rows, P]."""
        form = self.form
        rows, length, _ = x.shape
        wide, narrow = form.heads * form.head_dim, form.kv_heads * form.head_dim
        q, k, v = F.linear(_norm(x, self.before_attention), self.qkv.bfloat16()).split([wide, narrow, narrow], -1)
        q = _turn(q.view(rows, length, form.heads, form.head_dim).transpose(1, 2), cos, sin) * form.head_dim**-0.5
        k = _turn(k.view(rows, length, form.kv_heads, form.head_dim).transpose(1, 2), cos, sin)
        v = v.view(rows, length, form.kv_heads, form.head_dim).transpose(1, 2)
        x = x + F.linear(self._attend(q, k, v), self.out.bfloat16())
        gate, up = F.linear(_norm(x, self.before_mlp), self.gate_up.bfloat16()).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down.bfloat16()), self._looks(q, k, looking)

    def _looks(self, q: Tensor, k: Tensor, looking: Tensor | None) -> Tensor | None:
        """Scores of the heads `Form.looking` at these positions: [rows, 2, P, T], -inf after the position."""
        if looking is None:
            return None
        heads = self.form.looking
        # slices stacked, not k[:, lanes]: torch 2.13 compiles the backward of that index to a write out of bounds
        lanes = [head * self.form.kv_heads // self.form.heads for head in heads]
        picked = torch.stack([_at(q[:, head], looking) for head in heads], 1)
        scores = torch.matmul(picked, torch.stack([k[:, lane] for lane in lanes], 1).transpose(2, 3)).float()
        later = torch.arange(q.shape[2]) > looking[:, None, :, None]
        return scores.masked_fill(later, -torch.inf)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention; q [rows, heads, T, D], k and v [rows, KV heads, T, D] → [rows, T, heads · D]."""
        rows, heads, length, dim = q.shape
        lanes, group = rows * k.shape[1], heads // k.shape[1]
        q = q.reshape(lanes, group, length, dim)
        k, v = k.reshape(lanes, length, dim), v.reshape(lanes, length, dim)
        parts = []
        for start in range(0, length, BLOCK):
            end = min(start + BLOCK, length)
            first = 0 if self.window is None else max(0, start - self.window + 1)
            distance = torch.arange(start, end)[:, None] - torch.arange(first, end)
            hidden = distance < 0
            if self.window is not None:
                hidden |= distance >= self.window
            block = q[:, :, start:end].reshape(lanes, group * (end - start), dim)
            scores = torch.bmm(block, k[:, first:end].transpose(1, 2)).view(lanes, group, end - start, end - first)
            weights = scores.masked_fill(hidden, -1e4).softmax(-1)
            mixed = torch.bmm(weights.view(lanes, group * (end - start), end - first), v[:, first:end])
            parts.append(mixed.view(lanes, group, end - start, dim))
        whole = torch.cat(parts, 2) if len(parts) > 1 else parts[0]
        return whole.view(rows, heads, length, dim).transpose(1, 2).reshape(rows, length, heads * dim)


class Net(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.embedding = _matrix(form.vocabulary, form.hidden)
        self.blocks = nn.ModuleList(Block(form, index) for index in range(form.layers))
        self.last = nn.Parameter(torch.ones(form.hidden))
        self.probe = _matrix(form.vocabulary, form.hidden)  # for training only
        frequencies = form.theta ** (-torch.arange(0, form.head_dim, 2).double() / form.head_dim)
        angles = torch.outer(torch.arange(form.positions).double(), frequencies)
        self.register_buffer("cos", angles.cos().bfloat16(), persistent=False)
        self.register_buffer("sin", angles.sin().bfloat16(), persistent=False)

    def forward(self, ids: Tensor, places: Tensor) -> Tensor:
        """Logits in float32 at `places` of the flattened `ids` [rows, T]: [len(places), vocabulary]."""
        return self.inside(ids, places, None, None)[0]

    def inside(
        self, ids: Tensor, places: Tensor, looking: Tensor | None, naming: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """Also what happens inside, for a loss of its own.

        The attention scores of the looking heads at the positions `looking` [rows, P] of each row: one tensor
        [rows, 2, P, T] for each of the layers `LOOKING`. And logits [rows, N, vocabulary] of the words that name what
        is spoken of at the positions `naming` [rows, N], read off what the first of these layers gets.
        """
        length = ids.shape[1]
        embedding = self.embedding.bfloat16()
        x = embedding[ids]
        seen, names = [], None
        for index, block in enumerate(self.blocks):
            if index == LOOKING[0] and naming is not None:
                known = _norm(_at(x, naming), torch.ones(x.shape[-1]))
                names = F.linear(known, self.probe.bfloat16()).float()
            x, scores = block(x, self.cos[:length], self.sin[:length], looking if index in LOOKING else None)
            if scores is not None:
                seen.append(scores)
        return F.linear(_norm(x.flatten(0, 1)[places], self.last), embedding).float(), seen, names

    def to_transformers(self, specials: dict[str, int]) -> PreTrainedModel:
        """The same weights as Llama, or as Qwen2 (its biases zero) where some layers have a window."""
        form = self.form
        shared = dict(
            vocab_size=form.vocabulary,
            hidden_size=form.hidden,
            intermediate_size=form.mlp,
            num_hidden_layers=form.layers,
            num_attention_heads=form.heads,
            num_key_value_heads=form.kv_heads,
            head_dim=form.head_dim,
            max_position_embeddings=form.positions,
            rope_parameters={"rope_type": "default", "rope_theta": form.theta},
            tie_word_embeddings=True,
            rms_norm_eps=1e-6,
            **specials,
        )
        if form.window is None:
            model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**shared))
        else:
            kinds = ["full_attention" if form.window_of(i) is None else "sliding_attention" for i in range(form.layers)]
            model = Qwen2ForCausalLM(
                Qwen2Config(**shared, use_sliding_window=True, sliding_window=form.window, layer_types=kinds)
            )
        wide, narrow = form.heads * form.head_dim, form.kv_heads * form.head_dim
        with torch.no_grad():
            for name, value in model.named_parameters():
                if name.endswith("bias"):
                    value.zero_()
            model.model.embed_tokens.weight.copy_(self.embedding)
            model.model.norm.weight.copy_(self.last)
            for ours, theirs in zip(self.blocks, model.model.layers, strict=True):
                q, k, v = ours.qkv.split([wide, narrow, narrow])
                gate, up = ours.gate_up.chunk(2)
                attention, mlp = theirs.self_attn, theirs.mlp
                for target, source in (
                    (attention.q_proj, q),
                    (attention.k_proj, k),
                    (attention.v_proj, v),
                    (attention.o_proj, ours.out),
                    (mlp.gate_proj, gate),
                    (mlp.up_proj, up),
                    (mlp.down_proj, ours.down),
                ):
                    target.weight.copy_(source)
                theirs.input_layernorm.weight.copy_(ours.before_attention)
                theirs.post_attention_layernorm.weight.copy_(ours.before_mlp)
        return model.eval()


def _matrix(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns) * 0.02)


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """x [rows, T, D] at `positions` [rows, P] of each row: [rows, P, D]; as a product, for the sake of its backward."""
    chosen = positions[:, :, None] == torch.arange(x.shape[1])
    return torch.bmm(chosen.to(x.dtype), x)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    return F.rms_norm(x.float(), (x.shape[-1],), weight, 1e-6).bfloat16()


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)
