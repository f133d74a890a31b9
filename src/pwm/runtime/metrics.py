"""Metrics as JSON lines: one object a line, flushed as it is written."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class MetricsWriter:
    """Appends to ``metrics.jsonl``. Values may be numbers, strings, lists or scalar tensors."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._handle = self.path.open("a", encoding="utf-8")
        self._start = time.monotonic()

    def write(self, step: int, metrics: dict[str, Any], **tags: Any) -> None:
        """Write one line; numbers that are not finite are written as null and named."""
        record: dict[str, Any] = {"step": step, "seconds": round(time.monotonic() - self._start, 3)}
        record |= tags
        bad = []
        for name, value in metrics.items():
            plain = value.item() if hasattr(value, "item") else value
            if isinstance(plain, float) and not math.isfinite(plain):
                bad.append(name)
                plain = None
            record[name] = plain
        if bad:
            record["not_finite"] = bad
        self._handle.write(json.dumps(record, allow_nan=False) + "\n")
        self._handle.flush()

    def close(self) -> None:
        self._handle.close()


def read_metrics(path: str | Path) -> Iterator[dict[str, Any]]:
    """All complete lines; a last line cut off by a kill is skipped."""
    with Path(path).open(encoding="utf-8") as handle:
        for line in handle:
            if not line.endswith("\n"):
                return
            yield json.loads(line)


def drop_after(path: Path, step: int, **tags: Any) -> None:
    """Forget lines beyond ``step`` that carry ``tags``: a resumed run writes them again."""
    if not path.exists():
        return
    kept = []
    for record in read_metrics(path):
        mine = all(record.get(key) == value for key, value in tags.items())
        if not (mine and record["step"] > step):
            kept.append(json.dumps(record) + "\n")
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept), encoding="utf-8")
    os.replace(temporary, path)
