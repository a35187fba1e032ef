"""lm-eval with our engine: the figures of its own `hf` model on the same checkpoint. Skipped where lm-eval is missing,
since it brings about 50 packages that nothing else here needs."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
import transformers

lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (pip install lm-eval accelerate)")

from longspan import LLM  # noqa: E402
from longspan.cli.lm_eval import rows  # noqa: E402
from longspan.errors import UsageError  # noqa: E402
from longspan.evals.harness import Harness, run  # noqa: E402

TASKS = ["tiny_choice", "tiny_roll", "tiny_answer"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}|{% endfor %}"
YAML = {
    "tiny_choice": "output_type: multiple_choice\ndoc_to_text: '{{text}}'\ndoc_to_choice: '{{choices}}'\n"
    "doc_to_target: '{{gold}}'\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n",
    "tiny_roll": "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list:\n"
    "  - metric: word_perplexity\n  - metric: byte_perplexity\n  - metric: bits_per_byte\n",
    "tiny_answer": "output_type: generate_until\ndoc_to_text: '{{text}}'\ndoc_to_target: '{{answer}}'\n"
    "generation_kwargs:\n  until: ['e']\n  max_gen_toks: 12\nmetric_list:\n  - metric: exact_match\n",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama of 128 positions, whose tokenizer begins texts with a token of its own and has a template."""
    path = tmp_path_factory.mktemp("llama")
    checkpoints.make("llama", path, max_position_embeddings=128)
    made = checkpoints.tokenizer(path, TEMPLATE)
    first, last = made.convert_ids_to_tokens([1, 2])
    made.bos_token, made.eos_token, made.pad_token = first, last, last
    made.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three tasks over the same eight documents: short ones, and some longer than the model's positions."""
    path, rng = tmp_path_factory.mktemp("tasks"), random.Random(0)

    def words(count: int) -> str:
        return " ".join("".join(rng.choices("abcdefgh", k=rng.randint(2, 6))) for _ in range(count))

    documents = [
        {"text": words(n), "choices": [f" {words(1)}", f" {words(2)}", " a"], "gold": n % 3, "answer": "a"}
        for n in (3, 5, 8, 4, 60, 6, 45, 7)
    ]
    data = path / "data.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in documents))
    for name, body in YAML.items():
        source = f"dataset_path: json\ndataset_kwargs:\n  data_files: {{test: {data}}}\n  cache_dir: {path / 'cache'}\n"
        (path / f"{name}.yaml").write_text(f"task: {name}\n{source}test_split: test\n{body}")
    return str(path)


def engine(model: Path, **options: Any) -> LLM:
    return LLM(model, memory="64MB", dtype="float32", rope="checkpoint", **options)


def figures(found: dict[str, Any]) -> dict[str, Any]:
    return {name: {k: v for k, v in task.items() if isinstance(v, float)} for name, task in found["results"].items()}


def answers(found: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [one["filtered_resps"] for one in samples] for name, samples in found["samples"].items()}


@pytest.mark.parametrize("template", [False, True])
def test_the_figures_are_those_of_the_hf_model(model: Path, tasks: str, template: bool):
    pytest.importorskip("accelerate", reason="lm-eval's hf model needs accelerate")
    from lm_eval.models.huggingface import HFLM

    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    theirs = HFLM(
        pretrained=loaded, tokenizer=transformers.AutoTokenizer.from_pretrained(model), batch_size=1, max_length=128
    )
    options: dict[str, Any] = {"apply_chat_template": template, "bootstrap_iters": 0}
    wanted = run(theirs, TASKS, tasks, **options)
    found = run(Harness(engine(model), max_length=128), TASKS, tasks, **options)
    for name, task in figures(wanted).items():
        assert figures(found)[name] == pytest.approx(task, rel=1e-5)
    assert answers(found)["tiny_answer"] == answers(wanted)["tiny_answer"]
    for name in ("tiny_choice", "tiny_roll"):
        for one, other in zip(answers(found)[name], answers(wanted)[name], strict=True):
            flat = [torch.tensor(x, dtype=torch.float64).flatten() for x in (one, other)]
            assert torch.allclose(*flat, rtol=1e-5, atol=1e-4)
    assert {row[0] for row in rows(found["results"])} == set(TASKS)


def test_long_prompts_are_read_whole_without_max_length(model: Path):
    lm = Harness(engine(model))
    text = "ab " * 100
    sums = lm._loglikelihood_tokens([(None, lm.tok_encode(text), lm.tok_encode(" c", False))])[0][0]
    ids = [*lm.tok_encode(text), *lm.tok_encode(" c", False)]
    losses = lm.llm.losses(ids)
    assert sums == pytest.approx(-float(losses[-2:].sum()), rel=1e-5)


def test_what_has_no_meaning_is_refused(model: Path, tasks: str):
    waiting = Harness(engine(model, evict="snapkv:budget=100,wait=true"))
    with pytest.raises(UsageError, match="wait"):
        waiting._loglikelihood_tokens([(None, [1, 3], [4])])
    cut = Harness(engine(model, evict="snapkv:budget=100,once=true"))
    with pytest.raises(UsageError, match="leave once out"):
        cut._loglikelihood_tokens([(None, [1, 3], [4])])
    short = Harness(engine(model), max_length=3)
    assert len(short._loglikelihood_tokens([(None, [1, 3], [4, 5, 6])])) == 1
    with pytest.raises(UsageError, match="a continuation of 4 tokens is longer than 3; give 4 or more"):
        short._loglikelihood_tokens([(None, [1, 3], [4, 5, 6, 7])])
    with pytest.raises(UsageError, match="no_such_task"):
        run(waiting, ["no_such_task"], tasks)
    with pytest.raises(UsageError, match="num_beams"):
        waiting._sampling({"num_beams": 4})
    with pytest.raises(UsageError, match="room"):
        Harness(engine(model), max_length=16)._prompt("ab", 16)
