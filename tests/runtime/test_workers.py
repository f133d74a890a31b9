"""Work on several processes: every item comes back, done or with the reason why not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
import torch

from pwm.errors import UserError
from pwm.runtime.workers import run_in_processes


def work(item):
    """What the item says; runs in another process."""
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "leave":
        os._exit(3)
    if item == "bad input":
        raise UserError("give another file")
    if item == "bug":
        raise ZeroDivisionError("two\nlines")
    if isinstance(item, float):
        time.sleep(item)
    return item, os.getpid(), torch.get_num_threads()


def test_items_are_shared_out_and_failures_are_told_apart():
    items = ["bad input", 1, "bug", 2, "die", 3, 4, 5]
    done = {each.item: each for each in run_in_processes(work, items, workers=2)}
    assert set(done) == set(items)
    assert done["bad input"].failure == "give another file"
    assert done["bug"].failure == "ZeroDivisionError: two lines"
    assert done["die"].failure == "its process died (Killed; perhaps too little memory)"
    pids = set()
    for item in (1, 2, 3, 4, 5):
        value, pid, threads = done[item].result
        assert (value, threads, done[item].failure) == (item, 1, None)
        pids.add(pid)
    assert os.getpid() not in pids and len(pids) <= 2
    assert not multiprocessing.active_children()


def test_results_arrive_as_soon_as_they_are_there():
    begin = time.monotonic()
    order = [each.item for each in run_in_processes(work, [3.0, 0.01, 0.02], workers=2)]
    assert order == [0.01, 0.02, 3.0]
    assert time.monotonic() - begin < 60


def test_without_a_process_left_the_rest_is_reported():
    done = list(run_in_processes(work, ["leave", "die", 1, 2], workers=2))
    assert {each.item: each.failure for each in done} == {
        "leave": "its process died (exit code 3)",
        "die": "its process died (Killed; perhaps too little memory)",
        1: "no process was left for it",
        2: "no process was left for it",
    }


def test_no_process_outlives_an_iterator_that_is_left():
    results = run_in_processes(work, [0.01, 60.0, 60.0], workers=2)
    assert next(results).item == 0.01
    with pytest.raises(RuntimeError, match="stop"):
        results.throw(RuntimeError("stop"))
    assert not multiprocessing.active_children()
