from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

import checkpoints


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a family's tiny checkpoint, made once; tests that change it copy it first."""
    root = tmp_path_factory.mktemp("families")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            checkpoints.make(family, root / family)
        return root / family

    return folder


@pytest.fixture
def llama(families: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny llama, to be spoiled."""
    return Path(shutil.copytree(families("llama"), tmp_path / "llama"))


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test when the weights are loaded."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.fail("the weights were loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", refuse)


@pytest.fixture
def edit() -> Callable[..., None]:
    """Change keys of a JSON file in a checkpoint; None stands for JSON's null, `...` removes the key."""

    def change(path: Path, **changes: Any) -> None:
        held = json.loads(path.read_text()) if path.exists() else {}
        held.update(changes)
        path.write_text(json.dumps({key: value for key, value in held.items() if value is not ...}))

    return change
