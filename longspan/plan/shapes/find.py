"""Which model is meant: one that is known here, the config of a folder, or one of the hub."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from pathlib import Path
from typing import Any

from longspan.errors import ModelError
from longspan.plan.shape import Shape
from longspan.plan.shapes.config import from_config
from longspan.plan.shapes.known import KNOWN

CONFIG = "config.json"
LARGEST = 16 << 20
"""Bytes of a config.json that is still read."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")


def find(model: str) -> Shape:
    """The shape of a model: a name of the built-in table or the hub id of one of its models, the path of a folder or of
    a config.json, or a hub id, whose config.json alone is fetched.

    Raises ModelError, with the nearest names where nothing is found.
    """
    shape = built_in(model)
    if shape is not None:
        return shape
    try:
        path = Path(model).expanduser()
        if path.is_dir():
            return _local(path / CONFIG, path.resolve().name or model, path.resolve())
        if path.is_file():
            alone = path.name != CONFIG
            place = path.parent.resolve() / (path.name if alone else "")  # the file itself may be a link elsewhere
            return _local(path, path.stem if alone else place.name, place)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a home folder of nobody
        raise ModelError(f"{model[:200]}: the path cannot be read: {error}") from None
    if _HUB_ID.fullmatch(model) and ".." not in model and "--" not in model:
        return from_config(read(_fetch(model)), model, f"{CONFIG} of {model} on the hub")
    raise ModelError(f"no model {model[:200]!r}: {_near(model)}")


def _local(config: Path, name: str, place: Path) -> Shape:
    return dataclasses.replace(from_config(read(config), name, str(config)), place=str(place))


def built_in(model: str) -> Shape | None:
    """The shape of a model of the table, by its name or its hub id; None where there is none."""
    wanted = model.strip().lower()
    for name, known in KNOWN.items():
        if wanted in (name, known.hub.lower()):
            return from_config(known.config, name, f"{known.hub}: {known.source}")
    return None


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError for what is none, or too large to be a config."""
    try:
        if path.stat().st_size > LARGEST:
            raise ModelError(f"{path}: {path.stat().st_size:,} bytes; more than {LARGEST:,} are no config.json")
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; give a folder with a {CONFIG}, or one of: {', '.join(KNOWN)}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ModelError(f"{path} is not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object, not a {type(value).__name__}")
    return value


def _fetch(name: str) -> Path:
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(hf_hub_download(name, CONFIG))
    except errors.GatedRepoError:
        reason = "it is gated; accept its terms on the hub and log in with `hf auth login`"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        reason = "the hub has no such model, or gives no access"
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        reason = "the hub cannot be reached, and its config is not in the local cache"
    except Exception as error:
        # the hub's client raises errors of several HTTP libraries; each ends in the same sentence
        reason = f"the download failed ({type(error).__name__})"
    raise ModelError(f"no model {name!r}: {reason}; give the path of its config.json, or: {_near(name)}")


def _near(model: str) -> str:
    """The nearest names of the table, in words."""
    wanted = model.strip().lower().rpartition("/")[2]
    close = difflib.get_close_matches(wanted, KNOWN, 4, 0.4)
    also = f"did you mean {', '.join(close)}? " if close else ""
    return f"{also}Known: {', '.join(KNOWN)}; or a folder with a {CONFIG}, or a hub id such as org/name"
