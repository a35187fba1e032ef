"""Files on the command line: pages in a folder, texts that are kept, and plans that follow from the memory."""

from __future__ import annotations

import errno
import os
import re

import pytest
from page_files import fails

TEXT = "The access code is 48213.\nThe keeper is Flora.\n" * 60
ASKED = ("--question", "What is the code?", "--max-new-tokens", 6, "--ignore-eos")


def test_pages_in_a_folder_change_nothing(cli, chatty, tmp_path):
    plain = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--format", "int8", "--json").json
    filed = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--format", "int8", "--offload", tmp_path, "--json")
    assert filed.json["results"][0]["text"] == plain["results"][0]["text"]
    assert (plain["offload"], filed.json["offload"]) == ("none", str(tmp_path))
    assert plain["disk_bytes"] == 0 < filed.json["disk_bytes"]
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_used_is_said_before_reading(cli, chatty, tmp_path):
    result = cli("run", "--model", chatty, "--prompt", TEXT, "--offload", tmp_path / "gone")
    assert (result.code, result.out) == (5, "")
    assert re.fullmatch(r"longspan: error: .*gone: .* it does not exist; create it, or choose another\n", result.err)
    result = cli("run", "--model", chatty, "--prompt", TEXT, "--offload", tmp_path, "--evict", "h2o")
    assert (result.code, result.out) == (2, "")
    assert "leave out --offload or --evict" in result.err


def test_a_disk_that_fills_up_on_the_way(cli, chatty, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "pwrite", fails(errno.ENOSPC))
    result = cli("run", "--model", chatty, "--prompt", TEXT, "--offload", tmp_path)
    assert (result.code, result.out) == (1, "")
    assert "the disk is full; free some space, or choose another folder" in result.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "options", [(), ("--select", "sketch:pages=2,near=64"), ("--evict", "h2o:budget=512")], ids=str
)
def test_a_text_that_was_kept_is_asked_again(cli, chatty, tmp_path, options):
    kept = tmp_path / "text"
    first = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, *options, "--save", kept)
    assert first.code == 0
    assert f"{kept}: " in first.err
    again = cli("run", "--model", chatty, "--resume", kept, *ASKED, *options)
    assert again.out == first.out
    assert int(re.search(r"([\d,]+) tokens read", again.err)[1].replace(",", "")) < len(TEXT) + 200
    other = cli(
        "run", "--model", chatty, "--resume", kept, "--question", "Who keeps it?", *ASKED[2:], *options, "--json"
    )
    alone = cli(
        "run", "--model", chatty, "--prompt", TEXT, "--question", "Who keeps it?", *ASKED[2:], *options, "--json"
    )
    assert other.json["results"][0]["text"] == alone.json["results"][0]["text"]


def test_what_was_not_kept_here_is_refused(cli, chatty, tmp_path):
    kept = tmp_path / "text"
    assert cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--save", kept).code == 0
    whole = kept.read_bytes()
    for options, said in (
        (("--model", chatty, "--format", "int8"), "another model, rope, format or placement"),
        (("--model", chatty, "--rope", "yarn:factor=4"), "another model, rope, format or placement"),
    ):
        result = cli("run", *options, "--resume", kept, *ASKED)
        assert (result.code, result.out) == (5, "")
        assert said in result.err
        assert kept.read_bytes() == whole
    result = cli("run", "--model", chatty, "--resume", kept, "--prompt", TEXT, *ASKED)
    assert result.code == 2
    assert "leave out --prompt and --file" in result.err
    kept.write_bytes(whole[:-1])
    result = cli("run", "--model", chatty, "--resume", kept, *ASKED)
    assert (result.code, result.out) == (5, "")
    assert "short by 1 bytes" in result.err


def test_the_memory_chooses_and_says_why(cli, chatty):
    roomy = cli("run", "--model", chatty, "--prompt", TEXT[:1000], *ASKED, "--memory", "64MB")
    assert (roomy.code, "plan:" in roomy.err) == (0, False)
    tight = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--memory", "1500KB")
    assert tight.code == 0
    assert "plan: --format int8 --select sketch:pages=2,near=128 --place far:near=128\n" in tight.err
    assert "because the text is more than 8 times the 256 tokens that the model knows" in tight.err
    report = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--memory", "1500KB", "--json").json
    assert report["plan_why"].startswith("the text is more than 8 times")
    assert report["kv_bytes_peak"] <= 1_500_000
    own = cli(
        "run", "--model", chatty, "--prompt", TEXT, *ASKED, "--memory", "4MB", "--select", "quest:pages=2", "--json"
    )
    assert own.json["select"] == "quest:pages=2"
    none = cli("run", "--model", chatty, "--prompt", TEXT, *ASKED, "--memory", "60KB")
    assert none.code == 3
    assert re.search(r"no plan holds [\d,]+ tokens in 60,000 bytes .* the smallest needs [\d,]+", none.err)
