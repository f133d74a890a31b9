"""``pwm convert tdmpc2-data``: nothing lost, nothing twice, whatever interrupts it."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import random
import shutil
import time

import numpy as np
import pytest
from data.helpers import source_fields, write_chunk

from pwm.cli import main
from pwm.data import (
    EpisodeDataset,
    EpisodeWriter,
    WindowSampler,
    episode_returns,
    info,
    return_facts,
    tdmpc2,
)
from pwm.envs import list_tasks, task_spec
from pwm.errors import UserError
from pwm.runtime.files import read_json
from pwm.stages import convert_data
from pwm.stages.convert_data import ConvertDataConfig

STAND, WALK, PENDULUM, SPIN = 0, 1, 7, 29
FIRST, SECOND = [WALK, PENDULUM, WALK, SPIN, WALK], [PENDULUM, WALK, STAND, WALK]
ONE_EPISODE = 4 * (24 + 6 + 1) * 21


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Two episodes a block, so that each task takes several; no waiting for the disk."""
    monkeypatch.setattr(tdmpc2, "_BLOCK_BYTES", 2 * ONE_EPISODE)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def chunks(tmp_path):
    """Two files; what went into each, by path."""
    (tmp_path / "src").mkdir()
    parts = [source_fields(FIRST, seed=1), source_fields(SECOND, seed=2)]
    return {
        write_chunk(tmp_path / "src" / f"chunk_{i}.pt", fields, form): fields
        for (i, form), fields in zip(enumerate(("0.2", "0.5")), parts, strict=True)
    }


def convert(files, out, **changes):
    return convert_data.run(ConvertDataConfig(tuple(map(str, files)), str(out), **changes))


def files(root):
    """Everything that a data set consists of."""
    return {str(p.relative_to(root)): p.read_bytes()
            for p in sorted(root.rglob("*")) if p.is_file() and p.name != ".lock"}  # fmt: skip


def source_episodes(chunks, index, spec):
    """(observations, actions, rewards) of the task, in the order of the files."""
    for fields in chunks.values():
        for episode in np.flatnonzero(fields["task"][:, 0].numpy() == index):
            yield (fields["obs"].numpy()[episode, :, : spec.obs_dim],
                   fields["action"].numpy()[episode, 1:, : spec.action_dim],
                   fields["reward"].numpy()[episode, 1:])  # fmt: skip


def check_equal(out, chunks, task_set="mt30", tasks=None):
    dataset = EpisodeDataset.open(out)
    specs = list_tasks(task_set)
    found = set()
    for index, spec in enumerate(specs):
        wanted = list(source_episodes(chunks, index, spec))
        if not wanted or (tasks is not None and spec.id not in tasks):
            continue
        found.add(spec.id)
        task = dataset.tasks[spec.id]
        assert task.num_episodes == len(wanted)
        for episode, (o, a, r) in enumerate(wanted):
            rows = slice(int(task.offsets[episode]), int(task.offsets[episode]) + len(o))
            np.testing.assert_array_equal(task.observations[rows], o)
            np.testing.assert_array_equal(task.actions[rows][1:], a)
            np.testing.assert_array_equal(task.rewards[rows][1:], r)
            assert np.isnan(task.actions[rows][0]).all() and np.isnan(task.rewards[rows][0])
            assert task.returns[episode] == pytest.approx(r.sum(dtype=np.float64))
        assert not task.terminated.any() and np.isnan(task.success).all()
        assert task.collectors == ("tdmpc2",) and set(task.seeds.tolist()) == {-1}
    assert set(dataset.tasks) == found
    dataset.check_finite()


def test_every_episode_of_every_file_in_its_order(tmp_path, chunks):
    out = convert(chunks, tmp_path / "d")
    check_equal(out, chunks)
    walk = EpisodeDataset.open(out).tasks["dmc/walker-walk"]
    assert walk.num_episodes == 5 and walk.episode_length == 500
    assert walk.metadata["source"] == "tdmpc2 mt30"
    assert read_json(out / "convert.json")["complete"] is True


def test_a_folder_of_files(tmp_path, chunks):
    convert([tmp_path / "src"], tmp_path / "a")
    convert(chunks, tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_the_command_picks_tasks(tmp_path, chunks, capsys):
    arguments = ["convert", "tdmpc2-data", *map(str, chunks), "--out", str(tmp_path / "d")]
    assert main([*arguments, "--tasks", "walker-stand,pendulum-spin", "--task-set", "mt30"]) == 0
    check_equal(tmp_path / "d", chunks, tasks=("dmc/walker-stand", "dmc/pendulum-spin"))
    said = capsys.readouterr()
    assert said.out == "" and "convert: 40/40" in said.err and "pwm data info" in said.err
    arguments[-1] = str(tmp_path / "e")
    assert main([*arguments, "--task", "pendulum-swingup"]) == 0
    check_equal(tmp_path / "e", chunks, tasks=("dmc/pendulum-swingup",))


def test_a_bad_value_of_a_task_that_is_left_out_does_no_harm(tmp_path):
    fields = source_fields([WALK, PENDULUM])
    fields["obs"][1, 3, 0] = np.nan
    path = write_chunk(tmp_path / "chunk_0.pt", fields)
    with pytest.raises(UserError, match="episode 1 .* holds nan at step 3"):
        convert([path], tmp_path / "d")
    assert not (tmp_path / "d").exists()
    convert([path], tmp_path / "d", tasks=("walker-walk",))
    check_equal(tmp_path / "d", {path: fields}, tasks=("dmc/walker-walk",))


def test_the_80_tasks_come_in_pieces_of_100_steps(tmp_path, capsys):
    reach = [spec.id for spec in list_tasks("mt80")].index("metaworld/reach")
    fields = source_fields([WALK, reach, WALK, reach], steps=100, task_set="mt80")
    path = write_chunk(tmp_path / "chunk_0.pt", fields)
    out = convert([path], tmp_path / "d")
    check_equal(out, {path: fields}, "mt80")
    dataset = EpisodeDataset.open(out)
    assert dataset.tasks["dmc/walker-walk"].pieces_of == 500
    assert dataset.tasks["metaworld/reach"].pieces_of is None
    assert len(episode_returns([dataset], "dmc/walker-walk")) == 0
    assert len(episode_returns([dataset], "metaworld/reach")) == 2
    assert return_facts([dataset], "dmc/walker-walk") is None
    assert return_facts([dataset], "metaworld/reach")["episodes"] == 2
    assert [row["pieces_of"] for row in info.describe(out)["tasks"]] == [500, None]
    assert main(["data", "info", str(out)]) == 0
    table = capsys.readouterr().out
    assert "dmc/walker-walk*" in table and "metaworld/reach " in table
    assert "* pieces of longer episodes" in table


def test_windows_of_the_converted_data_are_rows_of_the_source(tmp_path, chunks):
    dataset = EpisodeDataset.open(convert(chunks, tmp_path / "d"))
    tasks, horizon = ["dmc/walker-walk", "dmc/pendulum-swingup"], 5
    sampler = WindowSampler([dataset], tasks=tasks, horizon=horizon, batch_size=400, obs_dim=24,
                            action_dim=6, seed=0, stream="test")  # fmt: skip
    assert sampler.num_windows == (5 + 2) * (20 - horizon + 1)
    windows = {}
    for index, name in enumerate((WALK, PENDULUM)):
        for o, a, r in source_episodes(chunks, name, task_spec(tasks[index])):
            for t in range(20 - horizon + 1):
                windows[o[t : t + horizon + 1].tobytes()] = (
                    index, a[t : t + horizon], r[t : t + horizon]
                )  # fmt: skip
    batch, seen = sampler.sample(0), set()
    for column in range(400):
        index = int(batch.task[column])
        spec = task_spec(tasks[index])
        key = batch.observations[:, column, : spec.obs_dim].numpy().tobytes()
        expected, actions, rewards = windows[key]
        assert index == expected and not batch.observations[:, column, spec.obs_dim :].any()
        np.testing.assert_array_equal(batch.actions[:, column, : spec.action_dim], actions)
        np.testing.assert_array_equal(batch.rewards[:, column], rewards)
        seen.add(key)
    assert len(seen) > 90


def test_a_world_model_trains_on_converted_data(tmp_path, chunks):
    out = convert(chunks, tmp_path / "d")
    assert main(["data", "info", str(out), "--json"]) == 0
    arguments = ["pretrain", "debug", "--data", str(out), "--out", str(tmp_path / "wm")]
    assert main([*arguments, "--horizon", "4", "--updates", "3"]) == 0
    tasks = read_json(tmp_path / "wm" / "config.json")["model"]["tasks"]
    assert sorted(tasks) == sorted(EpisodeDataset.open(out).tasks)


class Killed(BaseException):
    pass


def _kill_at(monkeypatch, call):
    """From the call-th time on that something is to reach the disk, nothing more is done."""
    calls = itertools.count(1)

    def fsync(descriptor):
        if next(calls) >= call:
            raise Killed

    monkeypatch.setattr(os, "fsync", fsync)


def test_resuming_from_every_point_gives_the_same_bytes(tmp_path, chunks, monkeypatch):
    two = ("walker-walk", "pendulum-spin")
    whole = files(convert(chunks, tmp_path / "whole", tasks=two))
    for call in itertools.count(1):
        out = tmp_path / f"d{call}"
        with monkeypatch.context() as patch:
            _kill_at(patch, call)
            try:
                convert(chunks, out, tasks=two)
                break
            except Killed:
                pass
        convert(chunks, out, tasks=two, resume=True)
        assert files(out) == whole, call
        shutil.rmtree(out)
    # 3 JSON files, then for each task one more and 5 for each block of two episodes
    assert call == 3 + 2 + 5 * (3 + 1) + 1


def test_killed_again_and_again(tmp_path, chunks, monkeypatch):
    """Progress is kept: each start gets a little further."""
    whole = files(convert(chunks, tmp_path / "whole"))
    kills = 0
    while kills < 30:
        with monkeypatch.context() as patch:
            _kill_at(patch, 9)
            try:
                convert(chunks, tmp_path / "d", resume=True)
                break
            except Killed:
                kills += 1
    assert files(tmp_path / "d") == whole
    assert 5 < kills < 20


def _convert_slowly(source, out, pipe):
    """One episode a block; tells when one is stored."""
    tdmpc2._BLOCK_BYTES = 1
    append = EpisodeWriter.append_many

    def told(*args, **kwargs):
        append(*args, **kwargs)
        pipe.send("stored")

    EpisodeWriter.append_many = told
    convert([source], out, resume=True)


def test_a_killed_process_goes_on(tmp_path):
    """SIGKILL at random moments of the writing."""
    fields = source_fields([WALK, PENDULUM] * 300, steps=4)
    path = write_chunk(tmp_path / "chunk_0.pt", fields)
    whole = files(convert([path], tmp_path / "whole"))
    generator, stored = random.Random(0), 0
    fork = multiprocessing.get_context("fork")
    while stored < 100:
        receiver, sender = fork.Pipe(duplex=False)
        process = fork.Process(target=_convert_slowly, args=(path, tmp_path / "d", sender))
        process.start()
        for _ in range(10):
            assert receiver.recv() == "stored"
        time.sleep(generator.uniform(0, 0.002))
        process.kill()
        process.join()
        tasks = EpisodeDataset.open(tmp_path / "d").tasks.values()
        now = sum(task.num_episodes for task in tasks)
        assert now >= stored + 10
        stored = now
    convert([path], tmp_path / "d", resume=True)
    assert files(tmp_path / "d") == whole


@pytest.mark.parametrize("call", [1, 2, 4, 6, 20])
def test_a_full_disk_is_one_line_and_can_be_mended(tmp_path, chunks, monkeypatch, call):
    whole = files(convert(chunks, tmp_path / "whole"))
    calls = itertools.count(1)

    def full(descriptor):
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left on device; mend that .* --resume"):
            convert(chunks, tmp_path / "d")
    convert(chunks, tmp_path / "d", resume=True)
    assert files(tmp_path / "d") == whole


def test_too_little_disk_is_told_before(tmp_path, chunks, monkeypatch):
    written = files(convert(chunks, tmp_path / "enough"))
    size = sum(len(content) for name, content in written.items() if name.endswith(".bin"))

    def with_free(count):
        usage = shutil._ntuple_diskusage(1 << 40, 1 << 40, count)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
        convert(chunks, tmp_path / "d")

    with pytest.raises(UserError, match="needs 0.00 GB of disk .* choose another disk with --out"):
        with_free(size - 1)
    assert not (tmp_path / "d").exists()
    with_free(size)
    assert files(tmp_path / "d") == written


def interrupted(chunks, out, monkeypatch):
    with monkeypatch.context() as patch:
        _kill_at(patch, 20)
        with pytest.raises(Killed):
            convert(chunks, out)
    return files(out)


def test_what_resume_takes(tmp_path, chunks, monkeypatch):
    paths, out = list(chunks), tmp_path / "d"
    before = interrupted(chunks, out, monkeypatch)
    other = write_chunk(tmp_path / "src" / "chunk_7.pt", source_fields(FIRST, seed=3))
    for given, changes in (
        (paths[:1], {}), (paths[::-1], {}), ([paths[0], other], {}), ([*paths, other], {}),
        (paths, {"tasks": ("walker-walk",)}),
    ):  # fmt: skip
        with pytest.raises(UserError, match="made from other files, tasks or another order"):
            convert(given, out, resume=True, **changes)
    with pytest.raises(UserError, match="holds an interrupted conversion; go on with --resume"):
        convert(paths, out)
    assert files(out) == before
    moved = tmp_path / "moved"
    (tmp_path / "src").rename(moved)
    convert([moved / path.name for path in paths], out, resume=True)
    check_equal(out, chunks)
    done = files(out)
    convert([moved / path.name for path in paths], out, resume=True)
    assert files(out) == done
    with pytest.raises(UserError, match="holds a finished conversion; choose another --out"):
        convert([moved / path.name for path in paths], out)


def test_resume_before_anything_was_written_is_a_start(tmp_path, chunks):
    convert(chunks, tmp_path / "d", resume=True)
    check_equal(tmp_path / "d", chunks)


def test_resume_into_episodes_of_another_origin(tmp_path, chunks, monkeypatch):
    interrupted(chunks, tmp_path / "d", monkeypatch)
    with EpisodeWriter(tmp_path / "d", "dmc/walker-run", obs_dim=24, action_dim=6,
                       episode_length=500, collector="sac") as writer:  # fmt: skip
        writer.append(np.zeros((3, 24)), np.zeros((2, 6)), np.zeros(2), terminated=False, seed=0)
    with pytest.raises(UserError, match="holds episodes that are not of this conversion"):
        convert(chunks, tmp_path / "d", resume=True)


def test_a_second_conversion_into_the_same_folder_waits(tmp_path, chunks, monkeypatch):
    interrupted(chunks, tmp_path / "d", monkeypatch)
    with (
        EpisodeWriter(tmp_path / "d", "dmc/walker-walk", obs_dim=24, action_dim=6,
                      episode_length=500, collector="tdmpc2"),
        pytest.raises(UserError, match="another process is writing"),
    ):  # fmt: skip
        convert(chunks, tmp_path / "d", resume=True)


def test_what_changed_in_the_file_since_is_found(tmp_path, monkeypatch):
    """Values are checked again as they are copied, not only before."""
    fields = source_fields([WALK] * 60)
    path = write_chunk(tmp_path / "chunk_0.pt", fields)
    interrupted([path], tmp_path / "d", monkeypatch)
    content = bytearray(path.read_bytes())
    place = content.index(fields["obs"].numpy()[45, 9].tobytes())
    content[place : place + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match="field 'obs' of episode 45 .* holds nan at step 9"):
        convert([path], tmp_path / "d", resume=True)
    assert EpisodeDataset.open(tmp_path / "d").tasks["dmc/walker-walk"].num_episodes == 44
