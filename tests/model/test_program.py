"""A model's step without its code: equal to the model, for every family that allows it, and refused with a reason where
it does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import pytest
import torch

from longspan import LLM
from longspan.attention.attend import attend
from longspan.attention.step import Trial
from longspan.kernels.rows import GatedLinear, Linears, Norm, SumNorm
from longspan.model.program import Differs, record

NONE = {  # why there is no program
    "mixtral": "div_ of numbers that depend on the tokens",
    "qwen3_moe": "__setitem__ of numbers",
    "gpt_oss": "add_ of numbers",
    "phi3": "constant that depends on the length",  # rotates a part of its channels
    "gpt_neox": "constant that depends on the length",
}


@pytest.fixture(scope="module", params=list(checkpoints.FAMILIES))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, LLM]:
    path = tmp_path_factory.mktemp(request.param)
    checkpoints.make(request.param, path)
    return request.param, LLM(path, memory="64MB", dtype="float32")


@pytest.mark.parametrize(("tokens", "kept"), [(1, 1), (2, 1), (7, 7), (16, 1), (17, 17), (100, 3)])
@torch.inference_mode()
def test_it_gives_what_the_model_gives(family: tuple[str, LLM], tokens: int, kept: int):
    name, llm = family
    forward = llm.scheduler.forward
    if forward.program is None:
        assert NONE[name] in str(forward.why_no_program)
        return
    assert name not in NONE
    row = torch.randint(0, checkpoints.VOCAB, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    keep, nowhere = torch.arange(tokens)[-kept:], Trial()
    mine, finite = forward.program(lambda *x, **k: attend(*x, **k, step=nowhere), row, keep)
    theirs, _ = forward._model(row, keep, nowhere)
    assert bool(finite)
    assert mine.shape == theirs.shape == (kept, checkpoints.VOCAB)
    torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


def test_nothing_of_the_rotation_by_position_0_is_left(family: tuple[str, LLM]):
    program = family[1].scheduler.forward.program
    if program is not None:
        kinds = {type(call.function) for call in program.calls}
        assert {Norm, Linears} <= kinds
        assert not {"cos", "neg", "cat", "rsqrt", "pow"} & {call.name for call in program.calls}


def test_what_a_llama_layer_is_made_of(tmp_path: Path):
    checkpoints.make("llama", tmp_path)
    llm = LLM(tmp_path, memory="64MB")
    program = llm.scheduler.forward.program
    assert program is not None
    names = [call.name for call in program.calls]
    layers = llm.shape.layers
    assert names.count("attend") == len(layers)
    assert names.count(GatedLinear.__name__) == len(layers)
    assert names.count(Norm.__name__) == 1  # of the embedding; the others follow a sum
    assert names.count(SumNorm.__name__) == 2 * len(layers)
    assert names.count(Linears.__name__) == 3 * len(layers) + 1  # q with k and v, o, down; the head


def looked_at(change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Record a model that does something with its row."""
    weight = torch.randn(32, 8)

    def run(row: torch.Tensor, keep: torch.Tensor) -> tuple[torch.Tensor]:
        return (change(torch.nn.functional.embedding(row, weight))[0, keep],)

    def inputs(tokens: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.arange(tokens)[None], torch.arange(tokens)[-kept:]

    program = record(run, inputs, attend, ("step", None))
    for tokens in (1, 3, 40):
        row = torch.arange(tokens)[None] % 32
        keep = torch.tensor([0])
        torch.testing.assert_close(program(attend, row, keep)[0], run(row, keep)[0])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda x: x if float(x.sum()) > 0 else -x, "looks at numbers"),
        (lambda x: x if x.sum() > 0 else -x, "looks at numbers"),
        (lambda x: x + x.max().item(), "looks at numbers"),
        (lambda x: x.clone().mul_(2), "mul_"),
        (lambda x: torch.where(x > 0)[0][None, :, None] * x[:, :1], "where"),
        (lambda x: x[:, x[0, :, 0] > -1e9], "__getitem__"),
        (lambda x: x + torch.ones(x.shape[1], 1) * x.shape[1], "constant that depends on the length"),
        (lambda x: x * x.shape[1] ** 2, "other numbers"),
        (lambda x: x * 2 if x.shape[1] > 10 else x * 2 * 1.5, "same calls"),
        (lambda x: x if x.shape[1] != 13 else x * 3, "other numbers"),
    ],
)
def test_what_depends_on_the_numbers_or_the_length_is_refused(change: Callable, why: str):
    with pytest.raises(Differs, match=why):
        looked_at(change)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x.view(1, -1, 2, 4).transpose(1, 2) * torch.ones(4)).transpose(1, 2).reshape(x.shape),
        lambda x: x * 1.0 + x * torch.zeros(8),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * torch.arange(8.0),
        lambda x: torch.nn.functional.silu(x) * x,
        lambda x: torch.cat(x.chunk(2, -1), 1)[:, : x.shape[1]].repeat(1, 1, 2),
        lambda x: x.expand(2, -1, -1)[1:].flip(1).contiguous() + x.shape[1],
        lambda x: x / x.pow(2).mean(-1, keepdim=True).add(1.0).rsqrt(),
    ],
)
def test_other_models_give_the_same(change: Callable):
    looked_at(change)
