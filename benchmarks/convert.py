"""How fast ``pwm convert tdmpc2-data`` is and how much memory it takes, on a file made here.

python benchmarks/convert.py --gigabytes 4 --json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from pathlib import Path

STEPS = 500


def make_file(path: Path, gigabytes: float) -> None:
    """Episodes of the 30 tasks in random order, with the dims of each and zeros behind."""
    import torch

    from pwm.envs import list_tasks

    tasks = list_tasks("mt30")
    count = int(gigabytes * 1e9 / (4 * (24 + 6 + 1 + 1) * (STEPS + 1)))
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(tasks), (count,), generator=generator)
    fields = {"obs": torch.randn(count, STEPS + 1, 24, generator=generator),
              "action": torch.rand(count, STEPS + 1, 6, generator=generator) * 2 - 1,
              "reward": torch.rand(count, STEPS + 1, generator=generator),
              "task": index.int()[:, None].repeat(1, STEPS + 1)}  # fmt: skip
    for episode, number in enumerate(index.tolist()):
        fields["obs"][episode, :, tasks[number].obs_dim :] = 0
        fields["action"][episode, :, tasks[number].action_dim :] = 0
    torch.save(fields, path)


def copy_rate(path: Path) -> float:
    """Megabytes a second of a plain copy, written through to the disk."""
    begin, copy = time.perf_counter(), path.with_suffix(".copy")
    shutil.copyfile(path, copy)
    with copy.open("rb") as handle:
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - begin
    copy.unlink()
    return path.stat().st_size / 1e6 / seconds


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gigabytes", type=float, default=1.0, help="size of the file")
    p.add_argument("--folder", default=None, help="where to work; default: the temporary folder")
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = p.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "chunk_0.pt"
        # in a process of its own, for its memory is not the conversion's
        spawn = multiprocessing.get_context("spawn")
        maker = spawn.Process(target=make_file, args=(path, options.gigabytes))
        maker.start()
        maker.join()
        rate = copy_rate(path)
        from pwm.runtime import system
        from pwm.stages.convert_data import ConvertDataConfig, run

        begin = time.perf_counter()
        run(ConvertDataConfig((str(path),), f"{folder}/data"))
        seconds, size = time.perf_counter() - begin, path.stat().st_size / 1e6
    result = {
        "file_mb": size, "seconds": seconds, "mb_per_second": size / seconds,
        "copy_mb_per_second": rate, "peak_memory_mb": system.peak_memory_bytes() / 1e6,
        "hardware": system.hardware(),
    }  # fmt: skip
    print(json.dumps(result) if options.json else result)


if __name__ == "__main__":
    main()
