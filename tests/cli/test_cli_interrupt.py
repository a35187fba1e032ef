"""Ctrl-C ends the process with 130, whatever it is doing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from longspan.engine.{module} import {owner}
own = {owner}.{method}
def slow(*args):
    sys.stderr.write("now\\n"); sys.stderr.flush()
    time.sleep(0.05)
    return own(*args)
{owner}.{method} = slow
from longspan.cli.main import main
main()
"""
PREFILL = SCRIPT.format(module="schedule", owner="Scheduler", method="step")
DECODE = SCRIPT.format(module="sample", owner="Sampler", method="draw")


@pytest.mark.parametrize("script", [PREFILL, DECODE], ids=["prefill", "decode"])
@pytest.mark.parametrize("offload", [False, True])
def test_interrupt(chatty, script, offload, tmp_path):
    options = ["run", "--model", str(chatty), "--prompt", "x" * 4000, "--chunk", "16" if script is PREFILL else "4096"]
    options += ["--offload", str(tmp_path)] if offload else []
    process = subprocess.Popen(
        [sys.executable, "-c", script, *options, "--max-new-tokens", "1000000", "--ignore-eos", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err.replace("now\n", "") == "interrupted\n"
    assert '"exit_code": 130' in out
    assert out.count('"error"') == 1
    assert os.listdir(tmp_path) == []
