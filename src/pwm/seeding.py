"""Named random streams: one seed gives every consumer its own independent generator."""

from __future__ import annotations

import zlib

import numpy as np


def stream_seed(seed: int, *names: str | int) -> int:
    """Return a 32-bit seed for the stream ``names`` of the experiment seed ``seed``.

    The same arguments always give the same number; different names give unrelated ones, so that
    adding a consumer of randomness never shifts the numbers that another one sees.
    """
    words = [seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF]
    for name in names:
        # The kind is part of the key: stream 3 and stream "3" are different streams.
        text = name if isinstance(name, str) else f"#{name}"
        words.append(zlib.crc32(text.encode()))
    return int(np.random.SeedSequence(words).generate_state(1)[0])
