"""Every ``pwm`` command in the README and the guide is one that the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pwm import demo
from pwm.cli import VERBS, main
from pwm.data import info
from pwm.stages import (
    collect,
    convert_checkpoint,
    convert_data,
    evaluate,
    extract,
    pretrain,
    report,
    tdmpc2,
)

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
STAGES = (collect, convert_checkpoint, convert_data, demo, evaluate, extract, pretrain, report,
          tdmpc2)  # fmt: skip


def commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split("&&"):
                    words = shlex.split(part, comments=True)
                    if words[:1] == ["pwm"]:
                        yield pytest.param(words[1:], id=f"{page.name}: {' '.join(words)}"[:90])


@pytest.mark.parametrize("words", list(commands()))
def test_is_understood(words, monkeypatch, capsys):
    ran = []
    for stage in STAGES:
        monkeypatch.setattr(stage, "run", lambda config, stage=stage: ran.append(stage) or {})
    for name in ("print_table", "describe", "save_histogram"):
        monkeypatch.setattr(info, name, lambda *a: ran.append(info) or {})
    words = [word for word in words if word != "..."]  # as in: pwm extract ... --updates 5
    assert main(words) == 0, capsys.readouterr().err
    assert ran or words[0] == "tasks"


def test_there_are_commands_of_every_verb():
    used = {parameter.values[0][0] for parameter in commands()}
    assert used == set(VERBS)
