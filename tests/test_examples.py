"""The examples and the README's Python block run as they stand, with less training."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_own_environment(tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "own_environment.py"), "--out",
         str(tmp_path / "run"), "--preset", "debug", "--steps", "600", "--pretrain-updates", "10",
         "--extract-updates", "3"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "return of one episode: -" in done.stdout


def test_readme_python_in_ten_lines(tmp_path, monkeypatch):
    """Load a world model, make an environment, extract, act: the README's own lines."""
    pytest.importorskip("dm_control")
    from pwm.presets import pretrain_preset
    from pwm.stages import collect, extract, pretrain
    from pwm.stages.extract import ExtractConfig

    block = re.search(r"## In Python\s+```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert block is not None
    code = block.group(1)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    collect.run(
        collect.CollectConfig(task="cartpole-swingup", steps=500, out="demo/data", num_envs=1)
    )
    from dataclasses import replace

    pretrain.run(replace(pretrain_preset("debug"), data=("demo/data",), out="demo/world_model"))
    short = {"updates": 2, "batch_size": 4, "horizon": 2, "eval_every": 2, "eval_episodes": 1}
    original = extract.run
    monkeypatch.setattr(
        extract, "run", lambda config: original(replace(config, **short, device="cpu"))
    )
    assert ExtractConfig().updates > 2
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["truncated"] and names["run"].path == Path("my_policy")  # type: ignore[attr-defined]
