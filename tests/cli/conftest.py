from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import pytest

from longspan.cli.main import call

TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'user' %}U: {{ m['content'] | trim }}\n"
    "{% else %}A: {{ m['content'] }}\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        value = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
        assert isinstance(value, dict)
        return value


class Stdin(io.TextIOWrapper):
    """Standard input with the given bytes, a terminal or not."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        super().__init__(io.BytesIO(data), encoding="utf-8")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in this process, as the installed `longspan` does."""

    def run(*args: object, stdin: bytes = b"", terminal: bool = False) -> Result:
        monkeypatch.setattr(sys, "stdin", Stdin(stdin, terminal))
        monkeypatch.setattr(sys, "argv", ["longspan", *map(str, args)])
        capsys.readouterr()
        code = call([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, trained at 256 tokens, with a byte tokenizer and a chat template."""
    path = tmp_path_factory.mktemp("chatty")
    checkpoints.make("llama", path, max_position_embeddings=256)
    checkpoints.tokenizer(path, TEMPLATE)
    return path


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same without a chat template."""
    path = tmp_path_factory.mktemp("plain")
    checkpoints.make("llama", path, max_position_embeddings=256)
    checkpoints.tokenizer(path)
    return path
