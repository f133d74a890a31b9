"""Names, aliases and the order of the task list."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pwm.envs import list_tasks, register, registry, task_spec
from pwm.errors import UserError

from .helpers import CountingEnv

MT30 = [
    "walker-stand",
    "walker-walk",
    "walker-run",
    "cheetah-run",
    "reacher-easy",
    "reacher-hard",
    "acrobot-swingup",
    "pendulum-swingup",
    "cartpole-balance",
    "cartpole-balance-sparse",
    "cartpole-swingup",
    "cartpole-swingup-sparse",
    "cup-catch",
    "finger-spin",
    "finger-turn-easy",
    "finger-turn-hard",
    "fish-swim",
    "hopper-stand",
    "hopper-hop",
    "walker-walk-backwards",
    "walker-run-backwards",
    "cheetah-run-backwards",
    "cheetah-run-front",
    "cheetah-run-back",
    "cheetah-jump",
    "hopper-hop-backwards",
    "reacher-three-easy",
    "reacher-three-hard",
    "cup-spin",
    "pendulum-spin",
]


# The 50 further tasks of mt80.
METAWORLD = """
assembly basketball button-press-topdown button-press-topdown-wall button-press button-press-wall
coffee-button coffee-pull coffee-push dial-turn disassemble door-open door-close drawer-close
drawer-open faucet-open faucet-close hammer handle-press-side handle-press handle-pull-side
handle-pull lever-pull peg-insert-side peg-unplug-side pick-out-of-hole pick-place pick-place-wall
plate-slide plate-slide-side plate-slide-back plate-slide-back-side push-back push push-wall reach
reach-wall shelf-place soccer stick-push stick-pull sweep-into sweep window-open window-close
bin-picking box-close door-lock door-unlock hand-insert
"""


@pytest.fixture
def clean_registry(monkeypatch):
    """Forget what a test registers."""
    monkeypatch.setattr(registry, "_user_tasks", {})
    monkeypatch.setattr(registry, "_measured", {})


def test_mt30_is_in_the_order_of_the_published_data():
    assert [task.id for task in list_tasks("mt30")] == [f"dmc/{name}" for name in MT30]


def test_mt80_continues_mt30_with_meta_world():
    expected = [f"dmc/{name}" for name in MT30]
    expected += [f"metaworld/{name}" for name in METAWORLD.split()]
    assert [task.id for task in list_tasks("mt80")] == expected
    assert [task.id for task in list_tasks()] == expected
    assert [task.id for task in list_tasks("metaworld")] == expected[30:]
    facts = {
        (task.obs_dim, task.action_dim, task.episode_length, task.action_repeat, task.extra)
        for task in list_tasks("metaworld")
    }
    assert facts == {(39, 4, 100, 2, "metaworld")}


def test_the_multi_task_widths_are_those_of_the_published_model():
    tasks = list_tasks("mt30")
    assert max(task.obs_dim for task in tasks) == 24
    assert max(task.action_dim for task in tasks) == 6
    assert {(task.episode_length, task.action_repeat) for task in tasks} == {(500, 2)}


@pytest.mark.parametrize(
    ("alias", "canonical"),
    [
        ("walker-walk", "dmc/walker-walk"),
        ("walker-walk-backward", "dmc/walker-walk-backwards"),
        ("dmc/cheetah-run-backward", "dmc/cheetah-run-backwards"),
        ("cup-catch", "dmc/cup-catch"),
        ("ball_in_cup-catch", "dmc/cup-catch"),
        ("dmc/ball-in-cup-spin", "dmc/cup-spin"),
        ("cartpole-balance_sparse", "dmc/cartpole-balance-sparse"),
        ("Reacher-Three-Hard", "dmc/reacher-three-hard"),
        ("mw-reach", "metaworld/reach"),
        ("metaworld/button_press_topdown", "metaworld/button-press-topdown"),
    ],
)
def test_aliases(alias, canonical):
    assert task_spec(alias).id == canonical


def test_unknown_id_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown task 'walker-wlak'.*'dmc/walker-walk'"):
        task_spec("walker-wlak")
    with pytest.raises(UserError, match="unknown task 'mw-raech'.*'metaworld/reach'"):
        task_spec("mw-raech")
    with pytest.raises(UserError, match="'gym/Pendulum-v1'"):
        task_spec("Pendulum-v1")


@pytest.mark.parametrize("task_id", ["", None, 3])
def test_an_id_that_is_no_text_is_refused(task_id):
    with pytest.raises(UserError, match="task id must be a text"):
        task_spec(task_id)


def test_unknown_suite_names_the_known_ones():
    with pytest.raises(UserError, match="unknown suite 'mt3'.*'mt30'"):
        list_tasks("mt3")


@pytest.mark.parametrize(
    ("task_id", "module"), [("walker-walk", "dm_control"), ("mw-reach", "metaworld")]
)
def test_installed_looks_up_without_importing(monkeypatch, task_id, module):
    spec = task_spec(task_id)
    monkeypatch.setitem(sys.modules, module, None)
    assert not spec.installed


def test_importing_the_package_loads_no_simulator():
    code = (
        "import sys, pwm.envs; pwm.envs.list_tasks('mt30')[0].installed; "
        "print([m for m in ('torch', 'dm_control', 'mujoco', 'gymnasium') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_a_registered_task_joins_the_list_and_is_measured_once(clean_registry):
    built = []

    def entry_point(**kwargs):
        built.append(kwargs)
        return CountingEnv(**kwargs)

    register("mine/count", entry_point, suites=["mine"])
    assert not built
    spec = task_spec("mine/count")
    assert (spec.obs_dim, spec.action_dim, spec.suites) == (2, 2, ("mine",))
    assert (spec.episode_length, spec.action_repeat, spec.installed) == (None, 1, True)
    assert list_tasks("mine") == [spec]
    assert list_tasks()[-1] == spec
    assert len(built) == 1


@pytest.mark.parametrize(
    ("task_id", "entry_point", "suites", "message"),
    [
        ("dmc/new", CountingEnv, (), "reserved"),
        ("gym/new", CountingEnv, (), "reserved"),
        ("metaworld/new", CountingEnv, (), "'metaworld/' is reserved"),
        ("walker-walk", CountingEnv, (), "taken"),
        (" mine", CountingEnv, (), "blanks"),
        ("mine/x", "CountingEnv", (), "callable"),
        ("mine/x", CountingEnv, ("mt30",), "'mt30' is fixed"),
        ("mine/x", CountingEnv, ("mine", "mt80"), "'mt80' is fixed"),
    ],
)
def test_register_refuses(clean_registry, task_id, entry_point, suites, message):
    with pytest.raises(UserError, match=message):
        register(task_id, entry_point, suites)
    assert len(list_tasks()) == 80


def test_register_refuses_a_second_time(clean_registry):
    register("mine/count", CountingEnv)
    with pytest.raises(UserError, match="taken"):
        register("mine/count", CountingEnv)
