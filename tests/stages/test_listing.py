"""The table of ``pwm tasks``."""

from __future__ import annotations

from pwm.envs import list_tasks, registry
from pwm.stages.listing import print_tasks


def test_the_80_tasks_fit_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_tasks(list_tasks("mt80"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if line and "/" in line[0]}
    assert list(rows) == [spec.id for spec in list_tasks("mt80")]
    for spec in list_tasks("mt80"):
        suites = " ".join(rows[spec.id][:-4]).split(", ")
        dims = [spec.obs_dim, spec.action_dim, spec.episode_length]
        assert tuple(suites) == spec.suites and rows[spec.id][-4:-1] == [str(dim) for dim in dims]


def test_what_is_not_installed_comes_with_its_command(capsys, monkeypatch):
    monkeypatch.setitem(registry._EXTRA_MODULES, "metaworld", "no_such_module")
    print_tasks(list_tasks("mt80")[28:32])
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "To install what lacks: pip install 'pwm-rl[metaworld]'"
    assert [line.split()[-1] for line in out.splitlines() if "metaworld/" in line] == ["no", "no"]
