"""Pictures without a screen, and the choice of the OpenGL backend."""

from __future__ import annotations

import platform
import subprocess
import sys

import numpy as np
import pytest

from pwm.envs import make, rendering
from pwm.errors import UserError

dm_control = pytest.importorskip("dm_control")
ON_LINUX = pytest.mark.skipif(platform.system() != "Linux", reason="the choice is Linux's")


def drawing_env(task_id: str, **options):
    env = make(task_id, render_mode="rgb_array", **options)
    env.reset(seed=0)
    try:
        env.render()
    except UserError as error:
        pytest.skip(f"no OpenGL here: {error}")
    return env


def test_picture_of_the_asked_size_that_follows_the_state():
    env = drawing_env("cartpole-swingup", width=64, height=48)
    try:
        first = env.render()
        assert first.shape == (48, 64, 3) and first.dtype == np.uint8
        assert first.std() > 5
        np.testing.assert_array_equal(first, env.render())
        for _ in range(10):
            env.step(np.ones(1, np.float32))
        assert not np.array_equal(first, env.render())
    finally:
        env.close()


def test_up_is_up():
    env = drawing_env("pendulum-swingup", width=64, height=64)
    physics = env.unwrapped.dm_environment.physics
    rows = []
    try:
        for angle in (0.0, np.pi):  # pole up, pole down
            with physics.reset_context():
                physics.named.data.qpos["hinge"] = angle
            red, _, blue = env.render().astype(int).transpose(2, 0, 1)
            rows.append(np.nonzero(red > blue + 40)[0].mean())  # the pole is orange
    finally:
        env.close()
    assert rows[0] < rows[1] - 5


def test_picture_may_be_larger_than_the_model_s_own_buffer():
    env = drawing_env("reacher-three-easy", width=800, height=700)
    try:
        assert env.render().shape == (700, 800, 3)
    finally:
        env.close()


def test_pictures_do_not_depend_on_who_imported_mujoco_first():
    code = (
        "import os; os.environ.pop('MUJOCO_GL', None); import mujoco; from pwm.envs import make; "
        "env = make('cheetah-run', render_mode='rgb_array'); env.reset(); print(env.render().std())"
    )
    drawing_env("pendulum-swingup").close()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(result.stdout) > 5, result.stderr


def test_two_environments_draw_in_turns():
    first, second = drawing_env("cartpole-swingup", width=40, height=40), drawing_env("cup-catch")
    try:
        before = first.render()
        assert second.render().shape == (320, 320, 3)
        np.testing.assert_array_equal(first.render(), before)
        second.close()
        np.testing.assert_array_equal(first.render(), before)
    finally:
        first.close()


def test_no_picture_without_the_mode():
    env = make("pendulum-swingup")
    env.reset()
    assert env.render() is None


def test_frame_rate_is_real_time():
    # Two control steps of 25 ms (walker) and of 10 ms (cheetah).
    assert make("walker-walk").metadata["render_fps"] == pytest.approx(20)
    assert make("cheetah-run").metadata["render_fps"] == pytest.approx(50)


def test_leaving_without_close_prints_nothing():
    drawing_env("pendulum-swingup").close()
    code = (
        "from pwm.envs import make; env = make('cheetah-run', render_mode='rgb_array'); "
        "env.reset(); env.render()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


@ON_LINUX
@pytest.mark.parametrize(
    ("egl", "osmesa", "choice"),
    [(True, True, "egl"), (False, True, "osmesa"), (False, False, "disable")],
)
def test_backend_choice(monkeypatch, egl, osmesa, choice):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "_egl_finds_device", lambda: egl)
    monkeypatch.setattr(rendering, "_loads", lambda library: osmesa)
    assert rendering.select_gl_backend() == choice


def test_the_user_s_backend_stays(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert rendering.select_gl_backend() == "glfw"


@ON_LINUX
def test_without_opengl_the_message_names_the_packages(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.setattr(rendering, "_egl_finds_device", lambda: False)
    monkeypatch.setattr(rendering, "_loads", lambda library: False)
    env = make("pendulum-swingup", render_mode="rgb_array")
    env.reset()
    with pytest.raises(UserError, match="libegl1 libopengl0 libgl1 libgl1-mesa-dri.*libosmesa6"):
        env.render()


def test_a_failing_renderer_is_one_line(monkeypatch):
    def fail(*arguments):
        raise AttributeError("two\nlines")

    monkeypatch.setenv("MUJOCO_GL", "egl")
    monkeypatch.setattr(rendering, "_context_class", fail)
    env = make("pendulum-swingup", render_mode="rgb_array")
    env.reset()
    with pytest.raises(UserError, match=r"MUJOCO_GL=egl: two lines\); install") as caught:
        env.render()
    assert "\n" not in str(caught.value)


def test_training_loads_no_second_renderer():
    code = (
        "import os, sys; os.environ.pop('MUJOCO_GL', None); "
        "from pwm.envs import make; make('pendulum-swingup'); "
        "from dm_control import _render; print(_render.BACKEND, os.environ.get('MUJOCO_GL'))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    backend, chosen = result.stdout.split()
    assert backend == "off" and chosen in ("egl", "osmesa", "disable", "None")
