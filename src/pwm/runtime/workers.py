"""Independent pieces of work on several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

from pwm.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Done(Generic[Item, Result]):
    """A finished piece of work: ``result``, or the ``failure`` in words when there is none."""

    item: Item
    result: Result | None
    failure: str | None = None


@dataclass
class _Worker(Generic[Item]):
    process: SpawnProcess
    connection: Connection
    item: Item


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[Done[Item, Result]]:
    """Do ``work`` on every item in up to ``workers`` fresh processes; yield in order of completion.

    Each process works with one torch thread. An item whose work raises, or whose process dies,
    comes back with its failure; the others go on. No process outlives the iterator.

    Args:
        work: function of one item that can be pickled, as its results must be too.
    """
    context = multiprocessing.get_context("spawn")
    waiting = deque(items)
    active: list[_Worker[Item]] = []
    try:
        for _ in range(min(workers, len(items))):
            connection, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, work), daemon=True)
            process.start()
            # Kept open here, the other end would hide the process's death.
            other.close()
            active.append(_Worker(process, connection, waiting.popleft()))
            _hand_over(active[-1])
        while active:
            ready = wait([worker.connection for worker in active])
            for worker in [worker for worker in active if worker.connection in ready]:
                yield _receive(worker)
                if worker.process.exitcode is None and waiting:
                    worker.item = waiting.popleft()
                    _hand_over(worker)
                else:
                    active.remove(worker)
                    worker.connection.close()
                    worker.process.join()
        for item in waiting:
            yield Done(item, None, "no process was left for it")
    finally:
        for worker in active:
            worker.process.terminate()
            worker.process.join()


def _hand_over(worker: _Worker[Any]) -> None:
    # If it has died meanwhile, receiving tells.
    with suppress(OSError):
        worker.connection.send(worker.item)


def _receive(worker: _Worker[Any]) -> Done[Any, Any]:
    try:
        result, failure = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode or 0
        how = f"exit code {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"
        hint = "; perhaps too little memory" if code == -signal.SIGKILL else ""
        return Done(worker.item, None, f"its process died ({how}{hint})")
    return Done(worker.item, result, failure)


def _serve(connection: Connection, work: Callable[[Any], Any]) -> None:
    """Life of a process: items in, (result, failure) out, until the other end is closed."""
    # Ctrl-C reaches every process of the terminal; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        answer: tuple[Any, str | None]
        try:
            answer = work(item), None
        except UserError as error:
            answer = None, str(error)
        except Exception as error:
            answer = None, " ".join(f"{type(error).__name__}: {error}".split())
        connection.send(answer)
