"""Where a model lies: a folder on this machine, or a hub id that is downloaded into one."""

from __future__ import annotations

import re
from pathlib import Path

from longspan.errors import ModelError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt"]
# sub-folders and "consolidated" files hold the same weights again in other formats
_UNWANTED = ["*/*", "consolidated*"]
_ADAPTER = "adapter_config.json"
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


def resolve(model: str | Path) -> Path:
    """The folder that holds `model`: a path, or a hub id such as "org/name", fetched without pickles and code.

    Raises ModelError when there is none, or when it holds something other than one whole model.
    """
    path = Path(model).expanduser()
    try:
        if path.is_dir():
            return _whole(path)
        if path.exists():
            raise ModelError(f"{path} is a file; give the folder that holds config.json and *.safetensors")
    except (OSError, ValueError) as error:
        raise ModelError(f"the model path cannot be read: {error}") from None
    if isinstance(model, str) and _HUB_ID.fullmatch(model) and ".." not in model and "--" not in model:
        return _whole(_download(model))
    raise ModelError(
        f"no model at {str(model)!r}; give a folder with config.json and *.safetensors, or a hub id such as org/name"
    )


def _whole(path: Path) -> Path:
    names = {entry.name for entry in path.iterdir()}
    if _ADAPTER in names:
        raise ModelError(f"{path} holds an adapter ({_ADAPTER}); merge it into its base model and give that folder")
    if any(_DISTRIBUTED.match(name) for name in names):
        raise ModelError(f"{path} holds a distributed training checkpoint; save the model with save_pretrained first")
    return path


def _download(name: str) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED))
    except errors.GatedRepoError:
        raise ModelError(f"{name} is gated; accept its terms on the hub and log in with `hf auth login`") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise ModelError(f"no folder {name!r} here, and no model of that name on the hub, or no access") from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled):
        reason = "the hub cannot be reached and the model is not in the local cache"
    except Exception as error:
        # the hub's client raises errors of several HTTP libraries; each ends in the same sentence
        reason = f"the download failed ({type(error).__name__})"
    raise ModelError(
        f"no folder {name!r} here, and {reason}; connect, or copy the model's folder to this machine and give its path"
    )
