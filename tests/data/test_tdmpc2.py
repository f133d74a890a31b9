"""TD-MPC2's data files: every form of pickle, whole and damaged, read in pieces."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch

from pwm.data import tdmpc2
from pwm.data.tdmpc2 import Chunk, blocks, expand
from pwm.envs import list_tasks, task_spec
from pwm.errors import UserError

from .helpers import FORMS, source_fields, write_chunk

WALK, PENDULUM, HOP, REACH = 1, 7, 18, 65
NUM = {"mt30": 30, "mt80": 80}


def refusal(path, task_set="mt30", task="walker-walk"):
    """The one line that the file is refused with; the folder stays as it was."""
    before = {p: p.stat().st_size for p in path.parent.iterdir()}
    with pytest.raises(UserError) as caught:
        chunk = Chunk(path)
        numbers = np.flatnonzero(chunk.task_indices(NUM[task_set], task_set) >= 0)
        list(blocks(chunk, numbers, task_spec(task)))
    assert {p: p.stat().st_size for p in path.parent.iterdir()} == before
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and text.startswith(str(path))
    return text


def check_rows(chunk, fields, task_set):
    """All of the file's episodes, compared with what went into it."""
    specs = list_tasks(task_set)
    tasks = fields["task"][:, 0].numpy()
    np.testing.assert_array_equal(chunk.task_indices(len(specs), task_set), tasks)
    for index in np.unique(tasks):
        spec, numbers = specs[index], np.flatnonzero(tasks == index)
        (read,) = blocks(chunk, numbers, spec)
        obs, action, reward = (
            fields[name].numpy()[numbers] for name in ("obs", "action", "reward")
        )
        np.testing.assert_array_equal(read.observations, obs[:, :, : spec.obs_dim])
        np.testing.assert_array_equal(read.actions, action[:, 1:, : spec.action_dim])
        np.testing.assert_array_equal(read.rewards, reward[:, 1:])
        assert read.observations.dtype == read.actions.dtype == read.rewards.dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_pickle_is_read_without_tensordict(tmp_path, form):
    fields = source_fields([WALK, PENDULUM, WALK, HOP], steps=12)
    chunk = Chunk(write_chunk(tmp_path / "chunk_0.pt", fields, form))
    assert (chunk.episodes, chunk.dims) == (4, (12, 24, 6))
    check_rows(chunk, fields, "mt30")
    assert not any(name.startswith("tensordict") for name in sys.modules)


@pytest.mark.parametrize(
    ("task_set", "steps", "tasks"),
    [("mt30", 500, [WALK, HOP]), ("mt80", 100, [REACH, WALK, REACH, 79])],
)
def test_the_layouts_of_both_task_sets(tmp_path, task_set, steps, tasks):
    fields = source_fields(tasks, steps, task_set)
    chunk = Chunk(write_chunk(tmp_path / "chunk_0.pt", fields))
    assert chunk.dims == (steps, {"mt30": 24, "mt80": 39}[task_set], 6)
    check_rows(chunk, fields, task_set)


def test_a_plain_dict_and_other_integers_and_views_of_larger_tensors(tmp_path):
    fields = source_fields([WALK, PENDULUM, HOP], steps=6)
    whole = {name: value.clone() for name, value in fields.items()}
    whole["task"] = whole["task"].to(torch.int64)
    torch.save({name: value[1:] for name, value in whole.items()}, tmp_path / "chunk_0.pt")
    check_rows(Chunk(tmp_path / "chunk_0.pt"), {n: v[1:] for n, v in whole.items()}, "mt30")


def test_further_fields_are_named_and_not_read(tmp_path):
    fields = source_fields([WALK]) | {"terminated": torch.zeros(1, 21), "a\x1b[31m": torch.ones(1)}
    chunk = Chunk(write_chunk(tmp_path / "chunk_0.pt", fields))
    assert chunk.ignored == ["a?[31m", "terminated"]


def test_blocks_give_each_episode_once_and_in_order(tmp_path, monkeypatch):
    fields = source_fields([WALK, HOP, WALK, WALK, HOP, WALK, WALK], steps=5)
    chunk = Chunk(write_chunk(tmp_path / "chunk_0.pt", fields))
    numbers = np.array([0, 2, 3, 5, 6])
    one = 4 * (24 + 6 + 1) * 6  # bytes of an episode
    for block_bytes, sizes in ((1, [1] * 5), (2 * one, [2, 2, 1]), (3 * one + 1, [3, 2])):
        monkeypatch.setattr(tdmpc2, "_BLOCK_BYTES", block_bytes)
        read = list(blocks(chunk, numbers, task_spec("walker-walk")))
        assert [len(block.rewards) for block in read] == sizes
        np.testing.assert_array_equal(
            np.concatenate([block.observations for block in read]), fields["obs"].numpy()[numbers]
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "place"), [("obs", (2, 0, 3)), ("action", (2, 1, 0)), ("reward", (2, 20))]
)
def test_a_value_that_is_not_finite_is_located(tmp_path, name, place, value):
    fields = source_fields([WALK, WALK, WALK])
    fields[name][place] = value
    text = refusal(write_chunk(tmp_path / "chunk_3.pt", fields))
    assert f"field '{name}' of episode 2 (dmc/walker-walk) holds {value}" in text
    assert f"at step {place[1]}" in text


@pytest.mark.parametrize("value", [1e-30, np.nan])
@pytest.mark.parametrize(("name", "place"), [("obs", (1, 0, 23)), ("action", (1, 4, 1))])
def test_padding_must_be_zero(tmp_path, name, place, value):
    fields = source_fields([PENDULUM, PENDULUM])
    fields[name][place] = value
    text = refusal(write_chunk(tmp_path / "chunk_0.pt", fields), task="pendulum-swingup")
    assert f"field '{name}' of episode 1 (dmc/pendulum-swingup)" in text
    assert "in the padding" in text and f"at step {place[1]}" in text


@pytest.mark.parametrize("block_bytes", [1, 1 << 20])
@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((2, slice(None)), 30, "episode 2 has task index 30, but mt30 has 30 tasks (0 to 29)"),
        ((1, slice(None)), -1, "episode 1 has task index -1"),
        ((2, 7), 3, "episode 2 changes from task 1 to 3 at step 7"),
        ((0, 0), 30, "episode 0 changes from task 30 to 1 at step 1"),
    ],
)
def test_task_indices(tmp_path, monkeypatch, place, value, message, block_bytes):
    monkeypatch.setattr(tdmpc2, "_BLOCK_BYTES", block_bytes)
    fields = source_fields([WALK, WALK, WALK])
    fields["task"][place] = value
    assert message in refusal(write_chunk(tmp_path / "chunk_0.pt", fields))


def changed(**changes):
    fields = source_fields([WALK, WALK]) | changes
    return {name: value for name, value in fields.items() if value is not None}


UNFIT = {
    "one missing": (changed(reward=None), "lacks the field reward;"),
    "three missing": (changed(obs=None, action=None, task=None),
                      "lacks the fields obs, action, task;"),
    "double": (changed(obs=torch.zeros(2, 21, 24).double()),
               "field 'obs' must be float32 with 3 axes, not torch.float64 (2, 21, 24)"),
    "half": (changed(reward=torch.zeros(2, 21).half()), "not torch.float16 (2, 21)"),
    "task as float": (changed(task=torch.zeros(2, 21)),
                      "field 'task' must be integers with 2 axes, not torch.float32 (2, 21)"),
    "axes": (changed(reward=torch.zeros(2, 21, 1)), "field 'reward' must be float32 with 2 axes"),
    "no tensor": (changed(task=[1, 1]), "must be integers with 2 axes, not list"),
    "sparse": (changed(task=torch.zeros(2, 21).int().to_sparse()), "field 'task' must be integers"),
    "episodes": (changed(action=torch.zeros(3, 21, 6)),
                 "field 'action' has shape (3, 21, 6), but 'obs' (2, 21, 24)"),
    "rows": (changed(reward=torch.zeros(2, 20)), "field 'reward' has shape (2, 20)"),
    "empty": ({n: v[:0] for n, v in changed().items()}, "holds no step"),
    "one row": ({n: v[:, :1].clone() for n, v in changed().items()}, "holds no step"),
    "transposed": (changed(reward=torch.zeros(21, 2).T), "not stored row by row and whole"),
    "expanded": (changed(task=torch.zeros(2, 1).int().expand(2, 21)), "not stored row by row"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_fields_that_do_not_fit(tmp_path, name):
    fields, message = UNFIT[name]
    assert message in refusal(write_chunk(tmp_path / "chunk_0.pt", fields))


def test_other_content(tmp_path):
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    assert "holds no TensorDict but a Tensor" in refusal(tmp_path / "tensor.pt")
    torch.save({"model": {"w": torch.ones(3)}}, tmp_path / "model.pt")
    assert "lacks the fields obs, action, reward, task" in refusal(tmp_path / "model.pt")
    fields = source_fields([WALK])
    torch.save(fields, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "torch's format before 1.6" in refusal(tmp_path / "old.pt")
    assert "does not exist" in refusal(tmp_path / "none.pt")


class Hostile:
    def __init__(self, function, *arguments):
        self.value = (function, arguments)

    def __reduce__(self):
        return self.value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", ["value", "field"])
def test_a_hostile_pickle_is_refused_and_does_not_run(tmp_path, form, inside):
    mark = tmp_path / "elsewhere" / "mark"
    mark.parent.mkdir()
    fields = source_fields([WALK])
    fields["obs" if inside == "field" else "more"] = Hostile(os.system, f"touch {mark}")
    path = write_chunk(tmp_path / "chunk_0.pt", fields, form)
    name = f"{os.system.__module__}.system"
    assert f"asks for '{name}', which is not on the list of harmless classes" in refusal(path)
    assert not mark.exists()


@pytest.mark.parametrize(
    "name", ["tensordict._lazy.LazyStackedTensorDict", "tensordict.memmap.MemoryMappedTensor"]
)
def test_other_classes_of_tensordict_are_named(tmp_path, name):
    path = write_chunk(tmp_path / "chunk_0.pt", source_fields([WALK]), "0.3")
    module, _, member = name.rpartition(".")
    replace_in_program(path, b"tensordict._td\nTensorDict", f"{module}\n{member}".encode())
    assert f"asks for '{name}'" in refusal(path)


def replace_in_program(path, old, new):
    source = {n: zipfile.ZipFile(path).read(n) for n in zipfile.ZipFile(path).namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in source.items():
            if name.endswith("/data.pkl"):
                assert old in content
                content = content.replace(old, new)
            archive.writestr(name, content)


def test_make_td_makes_nothing_but_a_tensordict(tmp_path):
    path = write_chunk(tmp_path / "chunk_0.pt", source_fields([WALK]), "0.5")
    replace_in_program(path, b"ctensordict._td\nTensorDict", b"ccollections\nOrderedDict")
    assert "damaged or not made of plain tensors" in refusal(path)


@pytest.mark.parametrize("keep", [0, 3, 100, 0.5, 0.99, -1])
def test_a_truncated_file(tmp_path, keep):
    path = write_chunk(tmp_path / "chunk_0.pt", source_fields([WALK] * 3))
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    assert re.search("truncated|damaged|empty|not a torch file", refusal(path))


@pytest.mark.parametrize("action", ["shorter", "gone"])
def test_a_file_that_changes_while_it_is_read(tmp_path, action):
    path = write_chunk(tmp_path / "chunk_0.pt", source_fields([WALK] * 3, steps=400))
    chunk = Chunk(path)
    chunk.task_indices(30, "mt30")
    if action == "gone":
        path.unlink()
    else:
        os.truncate(path, 60_000)
    with pytest.raises(UserError, match="chunk_0.pt can't be read any more"):
        list(blocks(chunk, np.arange(3), task_spec("walker-walk")))


def test_folders_are_their_chunks_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 9, 2, 0):
        (tmp_path / f"chunk_{number}.pt").touch()
    (tmp_path / "other.pt").touch()
    names = [f"chunk_{number}.pt" for number in (0, 2, 9, 10)]
    assert [path.name for path in expand([str(tmp_path)])] == names
    assert expand([str(tmp_path / "other.pt")]) == [tmp_path / "other.pt"]
    (tmp_path / "link.pt").symlink_to(tmp_path / "chunk_9.pt")
    for twice in ("chunk_9.pt", "./chunk_9.pt", "link.pt"):
        with pytest.raises(UserError, match="given twice"):
            expand([str(tmp_path), f"{tmp_path}/{twice}"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty holds no chunk_\\*.pt"):
        expand([str(tmp_path / "empty")])


READER = """
import resource, sys
import numpy as np
from pwm.data import tdmpc2
from pwm.data.tdmpc2 import Chunk, blocks
from pwm.envs import task_spec
tdmpc2._BLOCK_BYTES = 8 << 20
chunk = Chunk(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
numbers = np.flatnonzero(chunk.task_indices(30, "mt30") == 1)
rows = sum(len(block.rewards) for block in blocks(chunk, numbers, task_spec("walker-walk")))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Kilobytes that reading takes beyond the imports, for files of 19 MB and 187 MB."""
    taken = {}
    for episodes in (300, 3000):
        # zeros, which torch.save writes like any other numbers
        fields = {"obs": torch.zeros(episodes, 501, 24), "action": torch.zeros(episodes, 501, 6),
                  "reward": torch.zeros(episodes, 501),
                  "task": torch.ones(episodes, 501, dtype=torch.int32)}  # fmt: skip
        path = write_chunk(tmp_path / "chunk_0.pt", fields)
        assert path.stat().st_size > episodes * 501 * 32 * 4
        done = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True,
                              text=True, check=True)  # fmt: skip
        rows, taken[episodes] = map(int, done.stdout.split())
        assert rows == episodes
    assert taken[3000] < taken[300] + 8_000, taken
    assert taken[3000] < 100_000, taken
