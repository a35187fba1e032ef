from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
import transformers

from longspan.errors import ModelError, UnsupportedModel
from longspan.model import families as table
from longspan.model import inspect, load
from longspan.model.shape import Layer

FULL, SLIDING = "full_attention", "sliding_attention"
WINDOW = checkpoints.WINDOW


def test_there_is_a_tiny_checkpoint_for_every_supported_family() -> None:
    assert set(checkpoints.FAMILIES) == set(table.SUPPORTED)


@pytest.mark.parametrize("family", table.SUPPORTED)
def test_shape_is_what_the_modules_say(families: Callable[[str], Path], family: str) -> None:
    shape = inspect(families(family))
    model = load(families(family)).model
    plain = transformers.AutoConfig.from_pretrained(families(family))
    assert shape.family == family
    assert shape.hidden == plain.hidden_size
    assert shape.vocab == model.get_input_embeddings().weight.shape[0]
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.trained == plain.max_position_embeddings
    assert shape.eos == (2,)

    decoder = model.get_decoder()
    assert len(shape.layers) == len(decoder.layers)
    for i, (layer, module) in enumerate(zip(shape.layers, decoder.layers, strict=True)):
        attention = module.attention if family == "gpt_neox" else module.self_attn
        own = getattr(attention, "sliding_window", None)
        if family in ("mistral", "mixtral", "phi3"):  # these ask their config at each call
            own = attention.config.sliding_window
        assert layer.window == own, i
        assert (layer.rope is None) == (getattr(attention, "use_rope", 1) == 0), i
        assert shape.head_dim == getattr(attention, "head_dim", getattr(attention, "head_size", None))
        if family == "gpt_neox":
            assert attention.query_key_value.out_features == 3 * shape.heads * shape.head_dim
            assert shape.kv_heads == shape.heads
        elif family == "phi3":
            assert attention.qkv_proj.out_features == (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        else:
            assert attention.q_proj.out_features == shape.heads * shape.head_dim
            assert attention.k_proj.out_features == shape.kv_heads * shape.head_dim


@pytest.mark.parametrize("family", table.SUPPORTED)
def test_each_layers_rope_is_declared_and_has_the_models_own_frequencies(
    families: Callable[[str], Path], family: str
) -> None:
    shape = inspect(families(family))
    declared = transformers.AutoModelForCausalLM.from_pretrained(families(family)).get_decoder().rotary_emb
    for key in {layer.rope for layer in shape.layers} - {None}:
        rope, geometry = shape.ropes[key]
        angles = rope.angles(geometry, 1)
        prefix = f"{key}_" if family in table.TWO_ROPES else ""
        torch.testing.assert_close(
            torch.tensor(angles.inv_freq, dtype=torch.float32),
            getattr(declared, f"{prefix}inv_freq"),
            rtol=1e-5,
            atol=0,
        )
        assert angles.attention_factor == pytest.approx(getattr(declared, f"{prefix}attention_scaling"))


@pytest.mark.parametrize("family", table.SUPPORTED)
def test_the_loaded_models_own_rotation_is_the_identity_at_zero(families: Callable[[str], Path], family: str) -> None:
    decoder = load(families(family)).model.get_decoder()
    positions = torch.zeros(1, 5, dtype=torch.long)
    for kind in set(decoder.config.layer_types) if family in table.TWO_ROPES else {None}:
        cos, sin = decoder.rotary_emb(torch.zeros(1, 5, 64), positions, *([kind] if kind else []))
        assert bool((cos == 1).all())
        assert bool((sin == 0).all())


def test_layers_by_hand(families: Callable[[str], Path]) -> None:
    def layers(family: str) -> tuple[Layer, ...]:
        return inspect(families(family)).layers

    assert layers("mistral") == (Layer(WINDOW, "all"),) * 3
    assert layers("qwen2") == (Layer(None, "all"), Layer(WINDOW, "all"), Layer(None, "all"))
    assert layers("gemma3_text")[:2] == (Layer(WINDOW, SLIDING), Layer(None, FULL))
    assert layers("smollm3") == (Layer(None, "all"), Layer(WINDOW, None), Layer(WINDOW, "all"), Layer(None, None))


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("mistral", {"sliding_window": None}, [None] * 3),
        ("mixtral", {"sliding_window": 48}, [48] * 3),
        ("phi3", {"sliding_window": 48}, [48] * 3),
        ("qwen2", {"layer_types": ..., "max_window_layers": 1}, [None, 32, 32]),
        ("qwen3", {"use_sliding_window": True, "sliding_window": 48, "max_window_layers": 2}, [None, None, 48]),
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": 48}, [48] * 3),
        ("qwen3_moe", {"use_sliding_window": False, "sliding_window": 48}, [None] * 3),
        ("gemma2", {"layer_types": ...}, [32, None, 32, None]),
        ("gemma3_text", {"layer_types": ..., "sliding_window_pattern": 3}, [32, 32, None, 32]),
        ("gpt_oss", {"layer_types": ...}, [32, None, 32, None]),
        ("smollm3", {"layer_types": ..., "no_rope_layers": ..., "no_rope_layer_interval": 2}, [None, 32, None, 32]),
        ("smollm3", {"layer_types": ..., "use_sliding_window": False}, [None] * 4),
    ],
)
def test_windows_follow_the_config(
    families: Callable[[str], Path],
    edit: Callable[..., None],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    windows: list[int | None],
) -> None:
    # layer_types is left out unless it is given, so that the family's own rule makes them
    changes = {"layer_types": ..., **changes} if family in ("qwen3",) else changes
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    edit(folder / "config.json", **changes)
    assert [layer.window for layer in inspect(folder).layers] == windows


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("qwen2", {"use_sliding_window": False}, "layer 1 slides, but sliding_window is not set"),
        ("gemma2", {"sliding_window": None}, "layer 0 slides, but sliding_window is not set"),
        ("smollm3", {"use_sliding_window": False}, "layer 1 slides"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "no_rope_layers has 2 entries for 4 layers"),
        ("qwen2", {"layer_types": [FULL]}, "layer_types"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0"),
    ],
)
def test_layers_that_contradict_the_config_are_refused(
    families: Callable[[str], Path],
    edit: Callable[..., None],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    edit(folder / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        inspect(folder)


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("gemma3_text", {"use_bidirectional_attention": True}, "both directions"),
        ("llama", {"is_causal": False}, "both directions"),
        ("llama", {"attention_chunk_size": 8192}, "in chunks"),
        ("qwen3", {"layer_types": [FULL, "linear_attention", FULL]}, "layers of type 'linear_attention'"),
        ("llama", {"per_layer_config": {"0": {"head_dim": 8}}}, "different shapes"),
        ("llama", {"is_encoder_decoder": True}, "encoder-decoder"),
        ("llama", {"alibi": True}, "ALiBi"),
        (
            "llama",
            {"quantization_config": {"quant_method": "gptq"}},
            r"quantized weights \(gptq\) are not supported yet",
        ),
    ],
)
def test_features_that_would_run_wrongly_are_unsupported(
    families: Callable[[str], Path],
    edit: Callable[..., None],
    tmp_path: Path,
    family: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = Path(shutil.copytree(families(family), tmp_path / family))
    edit(folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        inspect(folder)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("deepseek_v3", "MLA"),
        ("deepseek_v2", "MLA"),
        ("bloom", "ALiBi"),
        ("mpt", "ALiBi"),
        ("gpt2", "learned"),
        ("opt", "learned"),
        ("gpt_bigcode", "learned"),
        ("mamba", "state"),
        ("jamba", "state"),
        ("qwen3_next", "linear-attention"),
        ("falcon_h1", "state"),
        ("rwkv", "state"),
        ("t5", "encoder-decoder"),
        ("whisper", "encoder-decoder"),
        ("llama4", "parity test"),
        ("glm4", "parity test"),
        ("cohere2", "parity test"),
        ("gemma3", "only the text model runs, as gemma3_text"),
        ("never_heard_of", "no parity test"),
    ],
)
def test_other_families_are_named_with_a_reason_and_the_supported_list(
    llama: Path, edit: Callable[..., None], no_weights: None, family: str, message: str
) -> None:
    edit(llama / "config.json", model_type=family)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        load(llama)
    assert str(caught.value).startswith(f"{family} is not supported: ")
    assert str(caught.value).endswith("Supported: " + ", ".join(table.SUPPORTED))
