"""`longspan eval lm-eval`: EleutherAI's harness with our engine."""

from __future__ import annotations

import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from longspan.cli import options, say
from longspan.errors import UsageError

Tasks = Annotated[str, typer.Option(metavar="NAMES", help="Tasks of lm-eval, or of your own, with commas between.")]
Include = Annotated[Path | None, typer.Option(metavar="DIR", help="A folder with YAML tasks of your own.")]
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, help="So many samples of each task at most.")]
Fewshot = Annotated[int | None, typer.Option(metavar="N", min=0, help="Examples before each question.")]
Template = Annotated[bool, typer.Option("--apply-chat-template", help="Put prompts in the model's chat template.")]
MaxLength = Annotated[
    int | None,
    typer.Option(
        metavar="TOKENS",
        help="Leave the beginning of longer prompts out, as lm-eval's hf model does. [default: read all of them]",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of the examples that are drawn, and of sampled answers.")]


def lm_eval(
    context: typer.Context,
    *,
    tasks: Tasks,
    include_path: Include = None,
    limit: Limit = None,
    num_fewshot: Fewshot = None,
    apply_chat_template: Template = False,
    max_length: MaxLength = None,
    seed: Seed = 1234,
    model: options.Model = None,
    rope: options.Rope = "auto",
    format: options.Format = None,
    evict: options.Evict = None,
    select: options.Select = None,
    place: options.Place = None,
    prefill: options.Prefill = None,
    offload: options.Offload = None,
    resident: options.Resident = None,
    dtype: options.Dtype = "auto",
    weights: options.Weights = "stored",
    device: options.Device = "auto",
    memory: options.Memory = None,
    page: options.Page = 64,
    chunk: options.Chunk = 2048,
    backend: options.Backend = "auto",
    json: options.Json = False,
) -> None:
    """Run tasks of EleutherAI's lm-evaluation-harness: log-likelihoods, perplexities and answers, with any plan."""
    engine = options.engine(locals())
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise UsageError("--tasks: give at least one name, as in --tasks lambada_openai,gsm8k")
    if include_path is not None and not include_path.is_dir():
        raise UsageError(f"--include-path {include_path}: no such folder; give the one with your YAML tasks")
    try:
        from longspan.evals.harness import Harness, run
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("lm_eval"):
            raise
        raise UsageError("eval lm-eval needs EleutherAI's package; pip install lm-eval") from None
    from longspan.evals import origin
    from longspan.evals.raw import versions

    llm = options.load(model, dtype=dtype, device=device, **engine)
    began = time.perf_counter()
    harness = Harness(llm, max_length=max_length, seed=seed)
    found = run(
        harness,
        names,
        None if include_path is None else str(include_path),
        limit=limit,
        num_fewshot=num_fewshot,
        apply_chat_template=apply_chat_template,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
    )
    seconds = time.perf_counter() - began
    if json:
        say.dump(
            {
                "suite": "lm-eval",
                "model": model or "embedded",
                "dtype": str(llm.dtype).removeprefix("torch."),
                "weights": llm.weights,
                "device": str(llm.device),
                "rope": llm.ropes.used(llm.reach(harness.longest)),
                **llm.plan.texts,
                "settings": {
                    "tasks": names,
                    "limit": limit,
                    "num_fewshot": num_fewshot,
                    "apply_chat_template": apply_chat_template,
                    "max_length": max_length,
                },
                "seed": seed,
                "versions": {**versions(), "lm-eval": metadata.version("lm-eval")},
                "trained": llm.shape.trained,
                "command": origin.command(sys.argv[1:]),
                "revision": origin.revision(),
                "kv_bytes_peak": llm.pool.peak_bytes,
                "disk_bytes": llm.pool.disk_bytes,
                "seconds": seconds,
                "results": found["results"],
                "task_versions": found["versions"],
                "samples": found["n-samples"],
                "warnings": say.notes(context).texts,
            }
        )
        return
    say.columns(("task", "metric", "value", "± standard error"), rows(found["results"]))
    say.note(f"{', '.join(names)}: {seconds:,.0f} s; KV {say.size(llm.pool.peak_bytes)} at its peak")


def rows(results: dict[str, dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Of each task its metrics, "name,filter" in lm-eval's results, with their errors where it gives them."""
    made = []
    for task, figures in results.items():
        for key, value in figures.items():
            name, _, chosen = key.partition(",")
            if name.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            error = figures.get(f"{name}_stderr,{chosen}")
            shown = f"{error:.4f}" if isinstance(error, float) else "–"
            if not chosen:
                continue
            made.append((task, name if chosen == "none" else f"{name} ({chosen})", f"{value:.4f}", shown))
    return made
