"""The import floors are contracts, and a wrong import breaks them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


SCRIPT = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

sys.meta_path[:] = BuiltinImporter, FrozenImporter, PathFinder  # that of an editable install would come before the path
sys.path.insert(0, ".")
from importlinter.cli import lint_imports_command

lint_imports_command()
"""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_wrong_import_breaks_the_contract(tmp_path: Path):
    """`make test` runs the same linter, which ends with an error when a floor imports what stands above it."""
    shutil.copytree(
        ROOT / "longspan", tmp_path / "longspan", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    clean = lint(tmp_path)
    assert clean.returncode == 0, clean.stdout
    with (tmp_path / "longspan" / "rope" / "rotate.py").open("a") as file:
        file.write("\nfrom longspan.cache.pool import Pool  # noqa\n")
    broken = lint(tmp_path)
    assert broken.returncode != 0
    assert "longspan.rope is not allowed to import longspan.cache" in broken.stdout
