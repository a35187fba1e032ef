"""Offload: sealed pages in a file, and those of them that are resident in memory."""

from __future__ import annotations

from longspan.cache.offload.file import PageFile
from longspan.cache.offload.resident import Resident
from longspan.cache.offload.store import Offloaded

__all__ = ["Offloaded", "PageFile", "Resident"]
