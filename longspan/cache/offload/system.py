"""What offloading asks of the system: files without names, locks, whole reads and writes, and refusals in words."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from longspan.errors import StoreError, UsageError

Numbers = Sequence[int] | np.ndarray | Tensor
"""Integers, in one dimension."""

Data = memoryview | bytes | Tensor
"""A record's bytes. A tensor may have any dtype."""

REASONS = {
    errno.ENOSPC: "the disk is full; free some space, or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or choose another folder",
    errno.EFBIG: "such a file is larger than the system allows; raise the limit (ulimit -f), or shorten the text",
    errno.ENOENT: "it does not exist; create it, or choose another",
    errno.ENOTDIR: "it is no folder; choose another",
    errno.EISDIR: "it is a folder; give the path of a file",
    errno.EEXIST: "it exists already; open it, delete it, or choose another name",
    errno.EACCES: "permission is missing; change its permissions, or choose another folder",
    errno.EPERM: "permission is missing; change its permissions, or choose another folder",
    errno.EROFS: "the disk is read-only; choose another folder",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


def refusal(where: str, what: str, error: OSError) -> StoreError:
    """The system's refusal as an error that says the way out."""
    return StoreError(f"{where}: {what}: {REASONS.get(error.errno or 0, error.strerror or str(error))}")


def nameless(folder: str) -> int:
    """A new file without a name: it is gone when its last descriptor is, however the process ends."""
    if hasattr(os, "O_TMPFILE"):
        try:
            return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o600)
        except OSError as error:  # a file system, or a kernel, that has no such thing
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
    path = os.path.join(folder, f".longspan-{secrets.token_hex(8)}")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.unlink(path)
    return fd


def lock(fd: int, path: str) -> None:
    """Keep all others out for as long as the file is open. Raises StoreError when someone is in."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise StoreError(
            f"{path}: already in use, by another process or by this one; wait for it, or choose another file"
        ) from error


def allocate(fd: int, start: int, size: int) -> None:
    """Give the file `size` bytes of disk from `start` on, where the system can, so that it does not run out of space
    later."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, start, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    os.ftruncate(fd, start + size)


def write(fd: int, data: memoryview, offset: int) -> None:
    """Write all of `data`."""
    while data:
        done = os.pwrite(fd, data, offset)
        data, offset = data[done:], offset + done


def read(fd: int, views: list[memoryview], offset: int) -> bool:
    """Fill `views` one after the other; False when the file ends before."""
    while views:
        done = os.preadv(fd, views, offset)
        if done == 0:
            return False
        offset += done
        full = 0
        while full < len(views) and done >= len(views[full]):
            done -= len(views[full])
            full += 1
        views = views[full:]
        if done:
            views[0] = views[0][done:]
    return True


def numbers(values: Numbers) -> np.ndarray:
    """int64, in one dimension."""
    return np.asarray(values.cpu().numpy() if isinstance(values, Tensor) else values, dtype=np.int64).reshape(-1)


def view(data: Data) -> memoryview:
    """The memory of `data` itself, byte by byte. Raises UsageError where it is not in one piece, in main memory."""
    if not isinstance(data, Tensor):
        return memoryview(data).cast("B")
    if not data.is_contiguous() or data.device.type != "cpu":
        raise UsageError("offload: a record must lie in one piece in main memory; call .cpu().contiguous() on it")
    array: np.ndarray = data.detach().reshape(-1).view(torch.uint8).numpy()
    return array.data
