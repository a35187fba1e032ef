"""Weights as codes of 8 and 4 bits: what is replaced, and how near the answers stay."""

from __future__ import annotations

import warnings
from pathlib import Path

import checkpoints
import pytest
import torch
from torch import nn

from longspan.engine.llm import LLM
from longspan.errors import UsageError
from longspan.kernels import cpu
from longspan.model import quantized
from longspan.model.load import load
from longspan.model.quantized import QuantizedLinear


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return [int(i) for i in torch.randint(300, 1000, (80,), generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(("form", "bound"), [("int8", 0.02), ("int4", 0.35)])
def test_logits_are_near_those_of_stored_weights(form: str, bound: float, prompt):
    right, got = (LLM(weights=w).logits(prompt) for w in ("stored", form))
    assert (got - right).norm() < bound * right.norm()


def test_layers_and_head_are_replaced_and_the_embedding_stays():
    plain = load(LLM().path).model
    for form in ("int8", "int4"):
        net = load(LLM().path, weights=form).model
        assert not any(type(m) is nn.Linear for m in net.base_model.layers.modules())
        assert isinstance(net.get_output_embeddings(), QuantizedLinear) == (form == "int8")
        assert torch.equal(net.get_input_embeddings().weight, plain.get_input_embeddings().weight)


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("rows", [1, 16, 17])
def test_torch_and_compiled_kernels_agree(form: str, rows: int, monkeypatch):
    layer = QuantizedLinear(nn.Linear(100, 70), form)
    x = torch.randn(2, rows, 100, generator=torch.Generator().manual_seed(0))[:1]
    with torch.no_grad():
        compiled = layer(x)
        monkeypatch.setattr(cpu, "NATIVE", None)
        monkeypatch.setattr(quantized, "BUFFER", 4 * 100 * 30)  # several blocks
        assert torch.allclose(layer(x), compiled, atol=1e-5)


def test_unknown_forms_are_refused():
    with pytest.raises(UsageError, match="weights 'int3' is not known; known: stored, int8, int4"):
        LLM(weights="int3")


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_family_runs_and_names_what_stays(family: str, tmp_path: Path):
    checkpoints.make(family, tmp_path)
    ids = list(range(3, 43))
    right = LLM(tmp_path).logits(ids)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        got = LLM(tmp_path, weights="int8").logits(ids)
    assert (got - right).norm() < 0.1 * right.norm()
    stays = [str(w.message) for w in told if "stay as they are stored" in str(w.message)]
    assert len(stays) == (family in {"mixtral", "qwen3_moe", "gpt_oss"})
