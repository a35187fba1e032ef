from __future__ import annotations

import subprocess

from longspan.evals.origin import command, revision


def git(folder, *words):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
    )


def test_the_revision_is_that_of_files_that_belong_to_the_repository(tmp_path):
    assert revision(tmp_path) is None, "no repository"
    inside = tmp_path / "package"
    inside.mkdir()
    (inside / "file").write_text("1")
    git(tmp_path, "init")
    assert revision(inside) is None, "a repository around files that are not in it"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    first = revision(inside)
    assert len(first) == 40
    (inside / "file").write_text("2")
    assert revision(inside) == f"{first}+changes"


def test_a_command_can_be_given_to_a_shell():
    assert command(["eval", "lookup", "--text=my file"]) == "longspan eval lookup '--text=my file'"
