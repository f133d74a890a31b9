"""Errors that a user can mend. The command line prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input: the message is one line that names the file or field and the remedy."""


class MissingExtra(UserError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, package: str, extra: str):
        super().__init__(
            f"{package} is not installed; install it with: pip install 'pwm-rl[{extra}]' "
            f"(or pip install '.[{extra}]' in a checkout)"
        )


def nearest(name: str, choices: Iterable[str]) -> str:
    """Sentence that suggests the choices most like ``name``; empty when none is close."""
    pool = list(choices)
    matches = difflib.get_close_matches(name, pool, n=3, cutoff=0.5)
    if not matches:
        return ""
    return " Did you mean " + " or ".join(f"'{match}'" for match in matches) + "?"
