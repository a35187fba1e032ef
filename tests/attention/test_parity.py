"""Logits and greedy text equal transformers' own (float32, eager, same checkpoint), for every family and rope type,
however the text is cut."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
import transformers

from longspan import LLM
from longspan.attention.step import Segment
from longspan.engine.schedule import Text

CHUNKS = (None, 1, 7, 64, 333)
ORIGINAL = 64
ROPES = {
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 8.0, "original_max_position_embeddings": ORIGINAL},
    "yarn+attention_factor": {
        "factor": 8.0,
        "original_max_position_embeddings": ORIGINAL,
        "attention_factor": 1.3,
        "beta_fast": 16.0,
    },
    "yarn+mscale": {
        "factor": 8.0,
        "original_max_position_embeddings": ORIGINAL,
        "mscale": 0.7,
        "mscale_all_dim": 1.2,
        "truncate": False,
    },
    "llama3": {
        "factor": 8.0,
        "original_max_position_embeddings": ORIGINAL,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    },
    "longrope": {"original_max_position_embeddings": ORIGINAL, "factor": 8.0},
}
LONG = pytest.mark.long
QUICK = ("llama", "gemma3_text")
MODELS = [  # phi3 knows only default and longrope, and has its own test
    pytest.param(family, marks=() if family in QUICK else LONG) for family in checkpoints.FAMILIES if family != "phi3"
]


def ids_of(tokens: int, seed: int = 1) -> list[int]:
    return torch.randint(3, checkpoints.VOCAB, (tokens,), generator=torch.Generator().manual_seed(seed)).tolist()


def theirs(path: Path, exact_angles: bool = False) -> transformers.PreTrainedModel:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)
    if exact_angles:
        _exact(model)
    return model.eval()


def _exact(model: transformers.PreTrainedModel) -> None:
    """Form cos and sin in float64: transformers' float32 angles are off by 1e-4 rad at a few thousand positions."""
    for module in model.modules():
        if not module.__class__.__name__.endswith("RotaryEmbedding"):
            continue

        def forward(self, x, position_ids, layer_type=None):
            prefix = f"{layer_type}_" if layer_type else ""
            inv_freq = getattr(self, f"{prefix}inv_freq")
            parameters = self.config.rope_parameters
            parameters = parameters[layer_type] if layer_type else parameters
            exponents = torch.arange(0, 2 * inv_freq.numel(), 2, dtype=torch.float64) / (2 * inv_freq.numel())
            plain = parameters["rope_theta"] ** -exponents
            angles = position_ids[..., None].double() * plain * (inv_freq.double() / plain).round(decimals=5)
            angles = torch.cat((angles, angles), -1) if not _half(self) else angles
            factor = getattr(self, f"{prefix}attention_scaling")
            return (angles.cos() * factor).to(x.dtype), (angles.sin() * factor).to(x.dtype)

        module.forward = forward.__get__(module)


def _half(module: torch.nn.Module) -> bool:
    return module.__class__.__name__ == "GptOssRotaryEmbedding"


@torch.inference_mode()
def reference(model: transformers.PreTrainedModel, ids: list[int]) -> torch.Tensor:
    model(torch.tensor([[3]]), use_cache=False)  # its dynamic NTK keeps the longest text's angles until a short one
    return model(torch.tensor([ids]), use_cache=False).logits[0]


def together(llm: LLM, texts: list[list[int]]) -> list[torch.Tensor]:
    """Logits of several texts that go through the model packed in one row."""
    made = [Text(ids, llm.pool) for ids in texts]
    segments = []
    for text in made:
        text.settle(llm.ropes)
        text.cache.grow(len(text.ids))
        segments.append(Segment(text.cache, len(text.ids), text.angles))
    packed = [i for ids in texts for i in ids]
    logits = llm.scheduler.forward(segments, packed, range(len(packed)))
    for text in made:
        text.cache.clear()
    return list(logits.split([len(ids) for ids in texts]))


def check(llm: LLM, model: transformers.PreTrainedModel, tokens: int = 300) -> None:
    ids = ids_of(tokens)
    expected = reference(model, ids)
    got = {chunk: llm.logits(ids, chunk=chunk) for chunk in CHUNKS}
    for chunk, logits in got.items():
        assert (logits - expected).abs().max() <= 1e-4, f"chunk {chunk}"
        assert (logits - got[None]).abs().max() <= 1e-5, f"chunk {chunk} against one shot"
    texts = [ids[:37], ids, ids_of(150, seed=2)]
    for text, logits in zip(texts, together(llm, texts), strict=True):
        assert (logits - reference(model, text)).abs().max() <= 1e-4
        assert (logits - llm.logits(text)).abs().max() <= 1e-5
    assert llm.pool.free == llm.pool.total


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_every_family(family: str, folder: Callable[..., Path]):
    """Beyond the family's window and, where it declares one, its original length."""
    path = folder(family, **({"sliding_window": 32} if family == "phi3" else {}))
    llm, model = LLM(path, memory="64MB"), theirs(path)
    check(llm, model)
    ids = ids_of(50)
    expected = model.generate(
        torch.tensor([ids]), max_new_tokens=64, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert list(llm.generate(ids, max_new_tokens=64, ignore_eos=True).ids) == expected[0, 50:].tolist()


def declare(family: str, name: str) -> dict:
    rope = {"rope_type": name.partition("+")[0], **ROPES[name]}
    if family == "gemma3_text":
        rope.pop("truncate", None)  # transformers 5.23 looks for it beside the layer types, where it is not
    if rope["rope_type"] == "longrope":
        pairs = 4 if family == "gpt_neox" else 8
        rope |= {"short_factor": [1 + 0.1 * i for i in range(pairs)], "long_factor": [1.0 + i for i in range(pairs)]}
    return rope


@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("family", MODELS)
def test_every_rope_type(family: str, name: str, folder: Callable[..., Path]):
    """300 tokens where the original length is 64. dynamic counts from max_position_embeddings."""
    positions = ORIGINAL if name == "dynamic" else ORIGINAL * 8
    path = folder(family, rope=declare(family, name), max_position_embeddings=positions)
    check(LLM(path, memory="64MB", rope="checkpoint"), theirs(path))


def test_phi3_longrope_with_partial_rotation(folder: Callable[..., Path]):
    rope = {"rope_type": "longrope", "short_factor": [1.1] * 6, "long_factor": [1.0 + i for i in range(6)]}
    path = folder("phi3", rope=rope, original_max_position_embeddings=ORIGINAL, max_position_embeddings=ORIGINAL * 8)
    llm, model = LLM(path, memory="64MB"), theirs(path)
    check(llm, model)
    short = ids_of(ORIGINAL)
    assert (llm.logits(short) - reference(model, short)).abs().max() <= 1e-4


def test_gemma3_declares_two_ropes(folder: Callable[..., Path]):
    """Nested per layer type: the full layers are scaled, the sliding ones keep their own base."""
    path = folder("gemma3_text", rope={"rope_type": "linear", "factor": 8.0})
    llm = LLM(path, memory="64MB")
    assert llm.ropes.used(100) == "linear:factor=8"
    check(llm, theirs(path))


@pytest.mark.parametrize("legacy", [{"type": "linear", "factor": 4.0}, {"rope_type": "dynamic", "factor": 2.0}])
def test_the_older_key_rope_scaling(legacy: dict, folder: Callable[..., Path], tmp_path: Path):
    import json
    import shutil

    path = shutil.copytree(folder("llama", max_position_embeddings=ORIGINAL), tmp_path / "old")
    config = json.loads((path / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    (path / "config.json").write_text(json.dumps({**config, "rope_theta": theta, "rope_scaling": legacy}))
    llm = LLM(path, memory="64MB")
    assert llm.ropes.used(400).startswith(legacy.get("type") or legacy["rope_type"])
    check(llm, theirs(path))


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt_oss"])
def test_two_thousand_tokens(family: str, folder: Callable[..., Path]):
    """2,048 tokens against transformers with its angles formed in float64."""
    path = folder(family, rope={"rope_type": "default"}) if family == "gpt_oss" else folder(family)
    llm, model, ids = LLM(path, memory="64MB"), theirs(path, exact_angles=True), ids_of(2048)
    expected = reference(model, ids)
    for chunk in (None, 333):
        assert (llm.logits(ids, chunk=chunk) - expected).abs().max() <= 1e-4


def test_positions_shifted_by_ten_million(llama: LLM):
    """The text may stand anywhere, also off the page grid: nothing but rounding changes."""
    ids = ids_of(300)
    plain = llama.logits(ids)
    for start in (64, 10_000_000, 10_000_013, 2**40 + 5):
        assert (llama.logits(ids, start=start) - plain).abs().max() < 1e-5


@pytest.mark.parametrize("page", [16, 32, 128])
def test_page_sizes_change_nothing(page: int, llama: LLM):
    ids = ids_of(300)
    other = LLM(llama.path, memory="64MB", page=page)
    assert (other.logits(ids, chunk=50) - llama.logits(ids)).abs().max() <= 1e-5


def test_the_reference_backend_gives_the_same(llama: LLM):
    ids = ids_of(300)
    other = LLM(llama.path, memory="64MB", backend="reference")
    assert (other.logits(ids, chunk=50) - llama.logits(ids)).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_near_as_transformers_itself(dtype: str, folder: Callable[..., Path]):
    """Our error against float32 stays within 1.5 times that of transformers in the same type."""
    path, ids = folder("llama"), ids_of(400)
    exact = reference(theirs(path), ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, attn_implementation="sdpa", dtype=getattr(torch, dtype)
    ).eval()
    other = (reference(model, ids).float() - exact).square().mean().sqrt()
    for chunk in (None, 1):
        ours = (LLM(path, memory="64MB", dtype=dtype).logits(ids, chunk=chunk) - exact).square().mean().sqrt()
        assert ours <= 1.5 * other, f"chunk {chunk}: {ours:.4f} against {other:.4f}"


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_stored_heads_are_the_models_kv_heads(groups: int, folder: Callable[..., Path]):
    """Nothing is repeated before it is cached, and the peak is the formula, rounded up to pages."""
    llm = LLM(folder("llama", num_key_value_heads=groups), memory="64MB")
    llm.generate(ids_of(200), max_new_tokens=1, ignore_eos=True)
    assert llm.pool.peak_bytes == 2 * 3 * groups * 16 * (-(-200 // 64) * 64) * 4
    assert np.prod(llm.pool.keys.shape[1:]) * 2 * 4 == llm.layout.page_bytes
