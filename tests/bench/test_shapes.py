"""Models with random weights load, and are what their names say."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from longspan import LLM
from longspan.bench import machine, plot, shapes
from longspan.bench.measure import Row
from longspan.errors import DoesNotFit, UsageError

SMALL = shapes.SHAPES["S"] | {"num_hidden_layers": 2, "vocab_size": 512, "intermediate_size": 96}


@pytest.mark.parametrize(("name", "parameters"), [("S", 134_515_008), ("1b", 1_235_814_400), ("8b", 8_030_261_248)])
def test_shapes_have_as_many_parameters_as_the_models_they_are_named_after(name, parameters):
    assert shapes.total(shapes.tensors(shapes.SHAPES[name])) == 2 * parameters


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shard", [1 << 30, 1 << 18])
def test_what_is_written_loads(tmp_path, monkeypatch, tied, shard):
    monkeypatch.setattr(shapes, "SHARD", shard)
    told = []
    config = SMALL | {"tie_word_embeddings": tied}
    shapes.write(tmp_path, config, lambda done, total: told.append((done, total)))
    assert told[-1] == (shapes.total(shapes.tensors(config)),) * 2
    assert len(list(tmp_path.glob("*.safetensors"))) == (1 if shard == 1 << 30 else len(told))
    llm = LLM(tmp_path, memory="8MB")
    assert (llm.dtype, len(llm.shape.layers), llm.shape.trained) == (torch.bfloat16, 2, shapes.TRAINED)
    logits = llm.logits([1, 2, 3])
    assert torch.isfinite(logits).all()
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.inference_mode():
        theirs = model(torch.tensor([[1, 2, 3]])).logits[0].float()
    assert torch.allclose(logits, theirs, atol=0.05)
    for weight in model.parameters():
        if weight.ndim == 2:
            assert weight.detach().float().std().item() == pytest.approx(0.02, rel=0.05)
            assert len(weight.detach().unique(dim=0)) == len(weight), "no two rows are the same"


def test_a_written_model_is_gone_afterwards(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "tiny", SMALL)
    with shapes.folder("tiny", lambda done, total: None) as made:
        assert LLM(made, memory="8MB").shape.vocab == 512
    with pytest.raises(UsageError, match="tiny"), shapes.folder(made, lambda done, total: None):
        pass


def test_a_disk_that_is_too_small(monkeypatch):
    monkeypatch.setattr(shapes.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(DoesNotFit, match="TMPDIR"), shapes.folder("8b", lambda done, total: None):
        pass


def test_limits_are_rates():
    assert machine.bandwidth(torch.device("cpu"), 1 << 20) > 1e6
    assert machine.product(torch.float32, torch.device("cpu"), 64) > 1e6
    least = machine.Limits(1.0, 4.0).best(machine.Limits(2.0, 3.0))
    assert dataclasses.astuple(least) == (2.0, 4.0)


def test_a_plot_of_rows_with_gaps(tmp_path):
    rows = [Row("a", n, 1, "read", {}, decode_ms=float(n)) for n in (1024, 2048)]
    rows += [Row("b", 1024, 1, "read", {}, error="no room")]
    plot.draw(rows, tmp_path / "plot.svg", "a title")
    drawn = (tmp_path / "plot.svg").read_text()
    assert "a title" in drawn or "<path" in drawn
    assert [plot.short(n) for n in (100, 1024, 131_072, 1 << 20)] == ["100", "1K", "128K", "1M"]
