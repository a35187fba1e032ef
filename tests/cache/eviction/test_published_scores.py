"""Policies against the formulas that kvpress 0.5.5 publishes, written anew here from transformers' own projections.

Both decide once, about the same prompt and for the same budget. Where a policy means something else, the test names it:
SnapKV's edges of the pool, expected attention's constants, heavy hitters' sum. `benchmarks/kvpress/kept.py` compares
with kvpress itself, on a trained model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch
import transformers

from longspan import LLM
from longspan.cache.eviction.expected_attention import EPSILON

T, H, G, D = 300, 4, 2, 16
BUDGET = 120
Kept = list[list[set[int]]]
"""Of each layer and KV head."""


class Prompt:
    """One prompt as transformers' projections see it: of each layer q [H, T, D], k and v [G, T, D], q and k turned to
    their positions in `turned`, and attention [H, T, T]."""

    def __init__(self, path: Path) -> None:
        self.ids = torch.randint(3, checkpoints.VOCAB, (T,), generator=torch.Generator().manual_seed(5)).tolist()
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.theta = model.config.rope_parameters["rope_theta"]
        self.layers: list[dict[str, torch.Tensor]] = []
        for layer in model.model.layers:
            found: dict[str, torch.Tensor] = {}
            self.layers.append(found)
            for name in "qkv":
                projection = getattr(layer.self_attn, f"{name}_proj")
                projection.register_forward_hook(
                    lambda _, args, out, found=found, name=name: found.update(
                        {name: out[0].view(T, -1, D).transpose(0, 1)}
                    )
                )
        with torch.no_grad():
            model(torch.tensor([self.ids]))
        for found in self.layers:
            at = torch.arange(T)
            q, k = self.turn(found["q"], at), self.turn(found["k"], at)
            scores = q @ k.repeat_interleave(H // G, 0).transpose(1, 2) / D**0.5
            hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
            found |= {"turned": k, "attention": scores.masked_fill(hidden, -torch.inf).softmax(-1)}

    def turn(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        angle = at[:, None] / self.theta ** (torch.arange(0, D, 2) / D)
        cos, sin = angle.cos().repeat(1, 2), angle.sin().repeat(1, 2)
        a, b = x.chunk(2, -1)
        return x * cos + torch.cat([-b, a], -1) * sin


@pytest.fixture(scope="module")
def prompt(folder: Callable[..., Path]) -> Prompt:
    return Prompt(folder("llama"))


def ours(folder: Callable[..., Path], prompt: Prompt, evict: str) -> Kept:
    llm = LLM(folder("llama"), memory="64MB", dtype="float32", evict=evict)
    with llm.session() as session:
        session.ask(prompt.ids, max_new_tokens=1)
        lanes = session._text.cache.lanes
        assert lanes is not None
        return [[{int(p) for p in lane if p >= 0} for lane in layer] for layer in lanes.notes.position]


def top(scores: torch.Tensor) -> list[set[int]]:
    return [set(lane.topk(BUDGET).indices.tolist()) for lane in scores]


def grouped(x: torch.Tensor) -> torch.Tensor:
    return x.view(G, H // G, *x.shape[1:]).mean(1)


def snapkv(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    window, kernel = 64, 5
    mean = layer["attention"][:, -window:, :-window].mean(1)
    pooled = torch.nn.functional.avg_pool1d(mean, kernel, 1, kernel // 2)
    return torch.nn.functional.pad(grouped(pooled), (0, window), value=2.0)


def tova(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    last = layer["attention"][:, -1, :-1].mean(0)
    return torch.nn.functional.pad(last, (0, 1), value=2.0).expand(G, -1)


def streaming(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    scores = torch.ones(G, T)
    scores[:, 4 : 4 + T - BUDGET] = 0
    return scores


def keydiff(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    anchor = torch.nn.functional.normalize(layer["turned"], dim=-1).mean(1, keepdim=True)
    return -torch.nn.functional.cosine_similarity(layer["turned"], anchor, dim=-1)


def observed(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    return grouped(layer["attention"].sum(1) / torch.arange(T, 0, -1))


def heavy(layer: dict[str, torch.Tensor], prompt: Prompt) -> torch.Tensor:
    """H2O's own: sums, not means."""
    return grouped(layer["attention"].sum(1))


def expected(layer: dict[str, torch.Tensor], prompt: Prompt, epsilon: float = 0.0, skip: int = 4) -> torch.Tensor:
    """epsilon: kvpress's default; the paper's, and ours, is 0.02. skip: tokens whose queries and keys do not count."""
    q, k, v = layer["q"][:, skip:], layer["turned"][:, skip:], layer["v"][:, skip:]
    mean = q.mean(1, keepdim=True)
    centred = q - mean
    cov = centred.transpose(1, 2) @ centred / centred.shape[1]
    ahead = torch.arange(T, T + 512)
    turning = torch.stack([prompt.turn(torch.eye(D)[i].expand(512, D), ahead).mean(0) for i in range(D)], 1)
    mean, cov = mean @ turning.T, turning @ cov @ turning.T
    keys = k.repeat_interleave(H // G, 0)
    logits = (keys @ mean.transpose(1, 2))[..., 0] / D**0.5 + ((keys @ cov) * keys).sum(-1) / D / 2
    scores = (grouped(logits.softmax(-1)) + epsilon) * v.norm(dim=-1)
    if skip == 0:
        scores[:, :4] = 1e9
        return scores
    return torch.nn.functional.pad(scores, (4, 0), value=1e9)


@pytest.mark.parametrize(
    ("evict", "published"),
    [
        ("tova:wait=true", tova),
        ("streaming:sinks=4", streaming),
        ("keydiff:recent=0,wait=true", keydiff),
        ("attention_score:recent=0,wait=true", observed),
        ("h2o:recent=0,wait=true", heavy),
    ],
)
def test_the_same_tokens_stay(
    evict: str,
    published: Callable[[dict[str, torch.Tensor], Prompt], torch.Tensor],
    folder: Callable[..., Path],
    prompt: Prompt,
):
    name, options = evict.split(":")
    kept = ours(folder, prompt, f"{name}:budget={BUDGET},{options}")
    assert kept == [top(published(layer, prompt)) for layer in prompt.layers]


def test_snapkv_differs_at_the_edges_of_its_pool_alone(folder: Callable[..., Path], prompt: Prompt):
    """kvpress pools zeros beyond the first token and beyond the window's first; ours pools what is there."""
    kept = ours(folder, prompt, f"snapkv:budget={BUDGET},wait=true")
    edges = {0, 1, T - 66, T - 65}
    for layer, lanes in zip(prompt.layers, kept, strict=True):
        for scores, mine in zip(snapkv(layer, prompt), lanes, strict=True):
            order = scores.argsort(descending=True, stable=True).tolist()
            inner = [i for i in order if i not in edges]
            assert mine - edges == set(inner[: len(mine - edges)])
            assert len(mine) == BUDGET
            assert len(mine ^ set(order[:BUDGET])) <= 2 * len(edges)


def test_expected_attention_differs_by_its_constants_alone(folder: Callable[..., Path], prompt: Prompt):
    kept = ours(folder, prompt, f"expected_attention:budget={BUDGET},wait=true")
    assert kept == [top(expected(layer, prompt, EPSILON, skip=0)) for layer in prompt.layers]
    assert kept != [top(expected(layer, prompt)) for layer in prompt.layers]


def test_heavy_hitters_are_not_observed_attention(folder: Callable[..., Path], prompt: Prompt):
    """A sum favours what is old, a mean does not: kvpress's ObservedAttention is our attention_score, not h2o."""
    kept = ours(folder, prompt, f"h2o:budget={BUDGET},recent=0,wait=true")
    assert kept != [top(observed(layer, prompt)) for layer in prompt.layers]
