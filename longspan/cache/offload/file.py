"""Pages in a file.

    header (one block) | checksums, 8 bytes a record (whole blocks) | records of one size, side by side

A file without a name has only the records: it can grow, and nobody else will ever read it. Reads and writes go through
preadv and pwrite into buffers of our own: a memory map would count as resident memory, and a full disk would kill the
process. Disk space is allocated before it is written. Needs a POSIX system.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import weakref
import zlib

import numpy as np
from torch import Tensor

from longspan.cache.offload.system import (
    Data,
    Numbers,
    allocate,
    lock,
    nameless,
    numbers,
    read,
    refusal,
    view,
    write,
)
from longspan.errors import DamagedPage, StoreError, UsageError

MAGIC = b"longspan"
VERSION = 1
BLOCK = 4096  # bytes; the header and the checksums fill whole blocks
HEADER = struct.Struct("<8sIIQQ32s")  # magic, version, 0, record bytes, records, digest of the key; its CRC-32 follows
WRITTEN = 1 << 32  # set in the entry of a record that was written; the low half is the record's CRC-32
VECTOR = 512  # buffers in one call of preadv; every system takes 1,024


class PageFile:
    """`count` records of `record_bytes` bytes in a preallocated file, each with a checksum.

    A file without a name leaves nothing behind however the process ends. A named one is for one process at a time,
    stays unless it is deleted, and opens again only under the key it was made with: what its records depend on
    (model, rope, format, placement). Make files with `create` and `open`.

    The checksum is zlib's CRC-32: it finds every changed byte, at four times the speed of BLAKE2b. StoreError says
    what the system refused or the file lacks; one that names a page leaves the others readable.
    """

    def __init__(self, fd: int, where: str, path: str | None, record_bytes: int, table: np.ndarray) -> None:
        self.record_bytes, self.path = record_bytes, path
        self._fd, self._where, self._table = fd, where, table
        self._start = _start(self.count) if path is not None else 0
        self._closer = weakref.finalize(self, os.close, fd)

    @property
    def count(self) -> int:
        """Records that there is room for."""
        return len(self._table)

    @classmethod
    def create(
        cls, folder: str | os.PathLike[str], record_bytes: int, count: int, key: bytes, name: str | None = None
    ) -> PageFile:
        """A new file in `folder`, nameless unless `name` is given. Raises StoreError, with nothing left behind, when
        the folder is missing, read-only or too full, or the name is taken."""
        if record_bytes < 1 or count < 1:
            raise UsageError(f"offload: {count} records of {record_bytes} bytes; give 1 or more of each")
        folder = os.fspath(folder)
        path = None if name is None else os.path.join(folder, name)
        where = path or folder
        size = count * record_bytes + (0 if path is None else _start(count))
        what = f"{size:,} bytes for offloaded pages were refused"
        try:
            fd = nameless(folder) if path is None else os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise refusal(where, what, error) from error
        try:
            if path is not None:
                lock(fd, path)
            allocate(fd, 0, size)
            if path is not None:
                head = HEADER.pack(MAGIC, VERSION, 0, record_bytes, count, _digest(key))
                write(fd, memoryview(head + zlib.crc32(head).to_bytes(4, "little")), 0)
        except BaseException as error:
            os.close(fd)
            if path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(path)
            if isinstance(error, OSError):
                raise refusal(where, what, error) from error
            raise
        return cls(fd, where, path, record_bytes, np.zeros(count, np.uint64))

    @classmethod
    def open(cls, path: str | os.PathLike[str], key: bytes) -> PageFile:
        """A named file that was kept. Raises StoreError when it is missing, in use, truncated, damaged, no such file,
        or made under another key."""
        path = os.fspath(path)
        try:
            fd = os.open(path, os.O_RDWR)
        except OSError as error:
            raise refusal(path, "cannot be opened", error) from error
        try:
            lock(fd, path)
            record_bytes, count = _shape(fd, path, key)
            table = np.empty(count, np.uint64)
            read(fd, [table.data.cast("B")], BLOCK)
        except BaseException as error:
            os.close(fd)
            if isinstance(error, OSError):
                raise refusal(path, "cannot be read", error) from error
            raise
        return cls(fd, path, path, record_bytes, table)

    def extend(self, count: int) -> None:
        """Room for `count` more records. Raises StoreError, with nothing changed, when the disk refuses."""
        assert self.path is None, "a file with a name has a checksum for each record in front of all of them"
        self.check(np.empty(0, np.int64))
        old = self.count * self.record_bytes
        try:
            allocate(self._fd, old, count * self.record_bytes)
        except OSError as error:
            what = f"{count * self.record_bytes:,} more bytes for offloaded pages were refused"
            raise refusal(self._where, what, error) from error
        self._table = np.concatenate((self._table, np.zeros(count, np.uint64)))

    def write(self, index: int, data: Data) -> None:
        """Record `index` becomes `data`. Raises StoreError; the record then counts as never written."""
        record = view(data)
        if len(record) != self.record_bytes:
            raise UsageError(f"offload: a record of {len(record)} bytes, where each has {self.record_bytes}")
        self._write([index], record)

    def write_many(self, indices: Numbers, data: Tensor) -> None:
        """Records indices[i] become the rows of data, uint8 [n, record_bytes]; those that follow one another in both
        are written in one call. Raises StoreError; the records of that call then count as never written."""
        wanted = numbers(indices)
        assert data.shape == (len(wanted), self.record_bytes), "a row of `data` is a record"
        if not len(wanted):
            return
        flat, size = view(data), self.record_bytes
        cuts = (np.flatnonzero(np.diff(wanted) != 1) + 1).tolist()
        for a, b in zip([0, *cuts], [*cuts, len(wanted)], strict=True):
            self._write(wanted[a:b], flat[a * size : b * size])

    def _write(self, indices: Numbers, data: memoryview) -> None:
        """Records that follow one another."""
        wanted, size = numbers(indices), self.record_bytes
        self.check(wanted)
        sums = (zlib.crc32(data[i * size : (i + 1) * size]) | WRITTEN for i in range(len(wanted)))
        entries = np.fromiter(sums, np.uint64, len(wanted))
        first = int(wanted[0])
        self._table[wanted] = 0
        try:
            write(self._fd, data, self._start + first * size)
            if self.path is not None:
                write(self._fd, entries.data.cast("B"), BLOCK + 8 * first)
        except OSError as error:
            raise refusal(self._where, f"page {first} cannot be written", error) from error
        self._table[wanted] = entries

    def read(self, index: int, out: Tensor) -> None:
        """Record `index` into out, uint8 [record_bytes]."""
        self.read_many([index], out[None])

    def read_many(self, indices: Numbers, out: Tensor, rows: Numbers | None = None) -> None:
        """Record indices[i] into row rows[i] of out, uint8 [n, record_bytes]; rows: 0, 1, … unless given.

        Records that lie side by side in the file are read in one call, in whatever order they are asked for. Raises
        DamagedPage, naming the page, for one that was never written, is cut off or does not match its checksum; `out`
        holds anything then.
        """
        wanted = numbers(indices)
        target = np.arange(len(wanted)) if rows is None else numbers(rows)
        self.check(wanted)
        assert out.shape[1:] == (self.record_bytes,), "a row of `out` is a record"
        if not len(wanted):
            return
        order = np.argsort(wanted, kind="stable")
        wanted, target = wanted[order], target[order]
        missing = wanted[self._table[wanted] == 0]
        if missing.size:
            raise DamagedPage(f"{self._where}: page {missing[0]} was never written; read its text again")
        flat, size = view(out), self.record_bytes
        records = [flat[row * size : (row + 1) * size] for row in target.tolist()]
        cuts = (np.flatnonzero(np.diff(wanted) != 1) + 1).tolist()
        for first, last in zip([0, *cuts], [*cuts, len(wanted)], strict=True):
            for a in range(first, last, VECTOR):
                self._fill(records[a : min(a + VECTOR, last)], int(wanted[a]))
        sums = np.fromiter((zlib.crc32(record) for record in records), np.uint64, len(records))
        damaged = wanted[sums | np.uint64(WRITTEN) != self._table[wanted]]
        if damaged.size:
            raise DamagedPage(
                f"{self._where}: page {damaged[0]} is damaged, its checksum does not match; read its text again"
            )

    def close(self, delete: bool = True) -> None:
        """Let go of the file. A named one is deleted, or else safely on the disk afterwards. May be called again."""
        if not self._closer.alive:
            return
        try:
            if self.path is not None and delete:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)
            elif self.path is not None:
                os.fsync(self._fd)
        except OSError as error:
            raise refusal(self._where, "cannot be closed", error) from error
        finally:
            self._closer()

    def check(self, indices: np.ndarray) -> None:
        """Raises UsageError for a number that is no record's, StoreError when the file is closed."""
        if not self._closer.alive:
            raise StoreError(f"{self._where}: already closed; create or open it again")
        wrong = indices[(indices < 0) | (indices >= self.count)]
        if wrong.size:
            raise UsageError(f"offload: there is no page {wrong[0]}; the file has 0 to {self.count - 1}")

    def _fill(self, records: list[memoryview], first: int) -> None:
        """Consecutive records, from `first` on."""
        try:
            whole = read(self._fd, records, self._start + first * self.record_bytes)
        except OSError as error:
            raise DamagedPage(str(refusal(self._where, f"page {first} cannot be read", error))) from error
        if not whole:
            last = first + len(records) - 1
            raise DamagedPage(f"{self._where}: the file ends within pages {first} to {last}; read their text again")


def _start(count: int) -> int:
    """Where the first record begins."""
    return BLOCK + -(-8 * count // BLOCK) * BLOCK


def _digest(key: bytes) -> bytes:
    return hashlib.blake2b(key, digest_size=32).digest()


def _shape(fd: int, path: str, key: bytes) -> tuple[int, int]:
    """Record bytes and count, from a header that is right in every respect."""
    head = os.pread(fd, HEADER.size + 4, 0)
    if len(head) < HEADER.size + 4 or not head.startswith(MAGIC):
        raise StoreError(f"{path}: no file of offloaded pages; choose another")
    if zlib.crc32(head[:-4]) != int.from_bytes(head[-4:], "little"):
        raise StoreError(f"{path}: its header is damaged; delete the file")
    _, version, _, record_bytes, count, digest = HEADER.unpack(head[:-4])
    if version != VERSION:
        raise StoreError(f"{path}: its layout has version {version}, this program writes {VERSION}; delete the file")
    if digest != _digest(key):
        raise StoreError(f"{path}: its pages belong to another model, rope, format or placement; choose another file")
    size, whole = os.fstat(fd).st_size, _start(count) + count * record_bytes
    if size != whole:
        wrong = f"short by {whole - size:,}" if size < whole else f"too long by {size - whole:,}"
        raise StoreError(f"{path}: {wrong} bytes, where {whole:,} should be; delete the file")
    return record_bytes, count
