"""Offload when the system refuses: a clear error, nothing half-written, nothing left behind."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from page_files import KEY, fails, filled, record, rows

from longspan.cache.offload import PageFile, Resident
from longspan.errors import StoreError


@pytest.mark.parametrize(
    ("call", "number", "says", "name"),
    [
        ("posix_fallocate", errno.ENOSPC, "bytes for offloaded pages were refused: the disk is full; free some", None),
        ("posix_fallocate", errno.ENOSPC, "the disk is full; free some", "pages"),
        ("posix_fallocate", errno.EFBIG, "raise the limit", None),
        # a file without a name is not written to before its first record
        ("pwrite", errno.ENOSPC, "the disk is full", "pages"),
        ("pwrite", errno.EIO, os.strerror(errno.EIO), "pages"),
    ],
)
def test_a_file_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, name: str | None, call: str, number: int, says: str, monkeypatch: pytest.MonkeyPatch
):
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, call, fails(number))
    with pytest.raises(StoreError, match=says):
        PageFile.create(tmp_path, 1000, 10, KEY, name)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EINVAL])
def test_file_systems_that_cannot_preallocate_still_serve(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "posix_fallocate", fails(number))
    pages = filled(tmp_path)
    pages.read(9, out := torch.empty(100, dtype=torch.uint8))
    assert torch.equal(out, record(100, 9))
    pages.close()


def test_the_disk_is_taken_at_once(tmp_path: Path):
    pages = PageFile.create(tmp_path, 4096, 256, KEY)
    assert os.fstat(pages._fd).st_blocks * 512 >= 4096 * 256
    pages.close()


def test_folders_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    for folder, says in ((tmp_path / "gone", "it does not exist; create it"), (tmp_path / "file", "it is no folder")):
        for name in (None, "pages"):
            with pytest.raises(StoreError, match=says) as caught:
                PageFile.create(folder, 100, 10, KEY, name)
            assert str(folder) in str(caught.value)
    for number, says in ((errno.EROFS, "the disk is read-only"), (errno.EACCES, "permission is missing")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fails(number))
            with pytest.raises(StoreError, match=f"{says}.* choose another folder"):
                PageFile.create(tmp_path, 100, 10, KEY)


@pytest.mark.parametrize("name", [None, "pages"])
def test_a_read_only_folder(name: str | None):
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(StoreError, match="permission is missing; change its permissions"):
                PageFile.create(folder, 100, 10, KEY, name)
        finally:
            os.seteuid(user)
            os.chmod(folder, 0o700)


def test_a_write_that_fails_leaves_no_half_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages = filled(tmp_path)
    real, done = os.pwrite, 0

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        nonlocal done
        done += 1
        if done > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:60], offset)

    resident = Resident(pages, 500)
    assert torch.equal(resident.get([2, 3]), rows(100, [2, 3]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(StoreError, match="page 3 cannot be written: the disk is full"):
            resident.put([3], record(100, 77)[None])
    for read in (lambda: resident.get([3]), lambda: pages.read(3, torch.empty(100, dtype=torch.uint8))):
        with pytest.raises(StoreError, match="page 3 was never written"):
            read()
    assert torch.equal(resident.get([2, 4]), rows(100, [2, 4]))
    resident.put([3], record(100, 78)[None])
    assert torch.equal(resident.get([3, 4])[0], record(100, 78))
    pages.close()


def test_a_read_error_names_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pages = filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fails(errno.EIO))
        with pytest.raises(StoreError, match="page 4 cannot be read: " + os.strerror(errno.EIO)):
            pages.read_many([5, 4], torch.empty(2, 100, dtype=torch.uint8))
    pages.close()


def test_a_folder_that_vanishes_does_no_harm(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    pages, named = filled(tmp_path / "sub"), filled(tmp_path / "sub", name="pages")
    (tmp_path / "sub" / "pages").unlink()
    (tmp_path / "sub").rmdir()
    for each in (pages, named):
        each.write(3, record(100, 33))
        each.read(3, out := torch.empty(100, dtype=torch.uint8))
        assert torch.equal(out, record(100, 33))
        each.close()


# --- nothing is left ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["O_TMPFILE", "unlink", "missing"])
def test_a_nameless_file_is_never_in_the_folder(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch):
    if how == "missing":
        monkeypatch.delattr(os, "O_TMPFILE")
    if how == "unlink":
        real = os.open

        def refuse(path: str, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no such thing here")
            return real(path, flags, mode)

        monkeypatch.setattr(os, "open", refuse)
    before = len(os.listdir("/proc/self/fd"))
    pages = filled(tmp_path)
    assert os.listdir(tmp_path) == []
    pages.read(3, out := torch.empty(100, dtype=torch.uint8))
    assert torch.equal(out, record(100, 3))
    pages.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_forgotten_is_closed(tmp_path: Path):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    pages = filled(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del pages
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_killed_process_leaves_nothing(tmp_path: Path):
    program = (
        "import sys, time\n"
        "from longspan.cache.offload import PageFile\n"
        "pages = PageFile.create(sys.argv[1], 4096, 100, b'key')\n"
        "pages.write(3, bytes(4096))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(20) == -signal.SIGKILL
    assert os.listdir(tmp_path) == []
