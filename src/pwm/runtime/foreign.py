"""Torch files that other programs wrote, read without running anything that they hold.

A torch file is a pickle, and a pickle is a program: whoever made it decides what loading it runs.
Here only tensors, plain containers and the stub classes that the caller names come to life.
"""

from __future__ import annotations

import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pwm.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

_ZIP_MAGIC = b"PK\x03\x04"
# torch's magic number as a pickle of protocol 2: how its files began before they were zips
_LEGACY_MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
# A file of tensors has a program of some kB, whatever the size of its tensors.
_LONGEST_PROGRAM = 64 << 20
_SAMPLE = 4096
_REFUSED = re.compile(r"GLOBAL (.+?) (?:was not an allowed global|whose module )")


class Stub:
    """Base of stand-ins for foreign classes: holds the plain attributes that a file gives it.

    Subclasses add nothing that runs. They take no constructor arguments.
    """

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(_plain(name) for name in state):
            raise ValueError(f"odd attributes for {type(self).__name__}")
        self.__dict__.update(state)


def load_foreign(path: str | Path, stubs: Mapping[str, Callable[..., Any]]) -> Any:
    """Content of a torch file, its tensors on the CPU and mapped from disk where that can be.

    Nothing is unpickled but tensors, plain containers and the classes of ``stubs``. Files in
    torch's format before 1.6 can't be mapped: they are read whole.

    Args:
        path: the file. It must not change while its tensors are in use.
        stubs: full name in the file, such as ``"tensordict._td.TensorDict"`` -> class to make in
            its place. What a stub is called with comes from the file: see :class:`Stub`.

    Raises:
        UserError: no file, not a torch file, truncated or damaged, or it asks for anything else
            than the above; one line with the file, the name that was refused and the remedy.
    """
    path = Path(path)
    mapped = is_mappable(path)
    if mapped:
        _check_records(path)
    return _load(path, stubs, map_location="cpu", mmap=mapped)


def load_layout(path: str | Path, stubs: Mapping[str, Callable[..., Any]]) -> Any:
    """As :func:`load_foreign`, but without the numbers: the tensors are on torch's meta device.

    :func:`place` tells where in the file a tensor's numbers are, to read them in pieces.

    Raises:
        UserError: as load_foreign, or a file in torch's format before 1.6.
    """
    path = Path(path)
    _check_records(_zipped(path))
    return _load(path, stubs, map_location="meta")


def place(path: str | Path, tensor: Tensor) -> int:
    """First byte in ``path`` of a tensor of :func:`load_layout`, row-major from there on.

    Raises:
        UserError: numbers that are not stored in row-major order or not wholly in the file.
    """
    storage = tensor.untyped_storage()
    begin = getattr(storage, "_checkpoint_offset", -1)
    first = tensor.storage_offset() * tensor.element_size()
    end = first + tensor.numel() * tensor.element_size()
    # torch works the place out from the lengths that the pickle claims: the archive must agree
    size = _record_places(Path(path)).get(begin, -1)
    if not (tensor.is_contiguous() and storage.nbytes() == size and end <= size):
        raise UserError(
            f"{path}: a tensor of shape {tuple(tensor.shape)} is not stored row by row and whole, "
            "as torch.save does; get a fresh copy of the file"
        )
    return int(begin + first)


def _record_places(path: Path) -> dict[int, int]:
    """First byte of each record's content -> its length."""
    records = _check_records(path)
    with path.open("rb") as handle:
        return {_content(handle, record): record.file_size for record in records}


def _content(handle: BinaryIO, record: zipfile.ZipInfo) -> int:
    """First byte of a record's content, which its local header stands before."""
    handle.seek(record.header_offset + 26)
    name, extra = struct.unpack("<HH", handle.read(4))
    return int(record.header_offset + 30 + name + extra)


def _load(path: Path, stubs: Mapping[str, Callable[..., Any]], **options: Any) -> Any:
    import torch

    try:
        with warnings.catch_warnings(), _only(stubs):
            warnings.simplefilter("ignore")
            return torch.load(str(path), weights_only=True, **options)
    # a hostile or damaged pickle can make the reader fail in any way at all
    except Exception as error:
        raise UserError(_explain(path, error)) from None


def is_mappable(path: str | Path) -> bool:
    """Whether ``path`` is a torch file of the zip kind, which can be mapped instead of read.

    Raises:
        UserError: no readable file, or neither kind of torch file.
    """
    try:
        with Path(path).open("rb") as handle:
            begin = handle.read(len(_LEGACY_MAGIC))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}); give a torch file") from None
    if not begin:
        raise UserError(f"{path} is empty; download or copy it again")
    if begin.startswith(_ZIP_MAGIC):
        return True
    if begin == _LEGACY_MAGIC:
        return False
    raise UserError(f"{path} is not a torch file; give one that torch.save wrote")


def fingerprint(path: str | Path) -> str:
    """Short text that tells files of different content apart without reading them whole.

    Made of the names, sizes and checksums that the zip archive lists for its records, and of the
    beginning, middle and end of each: torch can be told to leave the checksums out.

    Raises:
        UserError: not a torch file of the zip kind, truncated or damaged.
    """
    import hashlib

    path = Path(path)
    records = _check_records(_zipped(path))
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        for record in records:
            # the archive's own folder is named for the file: a copy under another name is equal
            name, size = record.filename.partition("/")[2], record.file_size
            digest.update(repr((name, size, record.CRC)).encode())
            begin = _content(handle, record)
            for first in (0, (size - _SAMPLE) // 2, size - _SAMPLE):
                handle.seek(begin + max(0, first))
                digest.update(handle.read(min(_SAMPLE, size)))
    return digest.hexdigest()[:16]


def _zipped(path: Path) -> Path:
    if not is_mappable(path):
        raise UserError(f"{path} is in torch's format before 1.6; save it again with a newer torch")
    return path


@contextmanager
def _only(stubs: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Allow exactly ``stubs``, and nothing that other code of this process has allowed."""
    import torch

    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([(stub, name) for name, stub in stubs.items()])
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(others)


def _check_records(path: Path) -> list[zipfile.ZipInfo]:
    """The archive's records, each stored plainly and wholly inside the file.

    Mapping looks at neither compression nor lengths: a tampered table would yield other bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records, end = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError):
        raise UserError(f"{path} is truncated or damaged; download or copy it again") from None
    for record in records:
        inside = record.header_offset >= 0 and record.header_offset + record.file_size <= end
        if record.compress_type != zipfile.ZIP_STORED or not inside:
            raise UserError(
                f"{path} is damaged or no torch file: record '{clean(record.filename)}' is "
                "compressed or reaches past the end; download or copy it again"
            )
    programs = [record for record in records if record.filename.endswith("/data.pkl")]
    if not programs:
        raise UserError(f"{path} is a zip archive but not a torch file; give one from torch.save")
    if any(record.file_size > _LONGEST_PROGRAM for record in programs):
        raise UserError(f"{path} holds more than tensors: its pickle is {programs[0].file_size} "
                        "bytes long; give a file of tensors from torch.save")  # fmt: skip
    with path.open("rb") as handle:
        for record in records:
            if record.filename.endswith("/byteorder"):
                handle.seek(_content(handle, record))
                if handle.read(min(record.file_size, 9)) != b"little":
                    raise UserError(
                        f"{path} comes from a big-endian machine; save it again on another"
                    )
    return records


def _explain(path: Path, error: Exception) -> str:
    """One line for whatever the reader failed with."""
    text = str(error)
    if found := _REFUSED.search(text):
        return (
            f"{path} asks for '{clean(found[1])}', which is not on the list of harmless classes; "
            "nothing was run; use only a file of the kind that this command takes"
        )
    if "TorchScript" in text:
        return f"{path} is a TorchScript program, not saved tensors; give a file from torch.save"
    reason = clean(text.strip().partition("\n")[0]) if len(text) < 200 else ""
    detail = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return f"{path} is damaged or not made of plain tensors ({detail}); get a fresh copy of it"


def _plain(name: Any) -> bool:
    return isinstance(name, str) and not name.startswith("__")


def clean(text: str) -> str:
    """Text from a file, fit for a terminal: no control characters, not long."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 120 else shown[:117] + "..."
