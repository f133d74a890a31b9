"""Facts about the machine and the installation that a run records."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "pwm-rl", "torch", "numpy", "gymnasium", "mujoco", "dm-control", "metaworld",
    "stable-baselines3",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Installed versions of the packages that influence results."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Commit of the checkout that this package runs from, "+changes" when it was edited."""
    package = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed copy may sit inside somebody else's repository: it must be tracked there.
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPU (only when torch is already loaded)."""
    facts: dict[str, Any] = {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        facts["memory_bytes"] = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    torch = sys.modules.get("torch")
    if torch is not None:
        facts["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            facts["gpu"] = torch.cuda.get_device_name()
    return facts


def precision() -> dict[str, Any]:
    """Numeric settings of torch that change results."""
    import torch

    return {
        "dtype": str(torch.get_default_dtype()).removeprefix("torch."),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
    }


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def command_line() -> str:
    """The command that started this process, as a user would type it."""
    name = Path(sys.argv[0]).name
    program = ["pwm"] if name in ("pwm", "__main__.py") else ["python", sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


def resolve_device(name: str) -> str:
    """Turn "auto" into "cuda" or "cpu"; UserError when the asked-for device is not there."""
    import torch

    from pwm.errors import UserError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {name} is not available here; use --device cpu") from None
    return name


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
