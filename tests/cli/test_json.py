"""The public contract of ``--json``: exactly one JSON object on stdout."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from pwm.cli import main


def printed(capsys, *arguments):
    assert main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def test_tasks(capsys):
    tasks = printed(capsys, "tasks", "--suite", "mt30", "--json")["tasks"]
    assert len(tasks) == 30
    walker = next(task for task in tasks if task["id"] == "dmc/walker-walk")
    assert (walker["obs_dim"], walker["action_dim"], walker["episode_length"]) == (24, 6, 500)
    assert isinstance(walker["installed"], bool) and "mt30" in walker["suites"]


def test_tasks_as_a_table(capsys):
    assert main(["tasks", "--suite", "mt30"]) == 0
    out = capsys.readouterr().out
    assert "dmc/walker-walk" in out and "dmc/hopper-hop-backwards" in out and "500" in out


def test_help_names_every_verb_and_loads_no_torch():
    code = (
        "import sys, time; begin = time.perf_counter(); import pwm.cli; pwm.cli.main(['--help']);"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'heavy imports'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for verb in ("tasks", "collect", "pretrain", "extract", "evaluate", "report", "demo"):
        assert verb in done.stdout


@pytest.mark.parametrize("verb", ["collect", "pretrain", "extract", "evaluate", "report", "demo"])
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"pwm {verb}" in capsys.readouterr().out
