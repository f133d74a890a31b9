"""What tests of bad input share: a hostile object, and a folder's content to compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Touch:
    """Makes a file when it is unpickled as it wants to be."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.path}",))


def tree(root: Path) -> dict[Path, bytes | None]:
    """Everything under ``root``: the bytes of files, None for folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in root.rglob("*")}
