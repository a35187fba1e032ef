"""Load a checkpoint safely, and refuse what does not fit.

    folder     a local folder, or a hub id downloaded into one
    files      small files read with limits
    headers    what the safetensors files hold, from their headers alone
    config     config.json, checked before transformers builds anything from it
    families   which families run, their windows and rotations per layer, and why others do not
    ropes      the rotation a checkpoint declares, taken out of its config
    shape      what the floors above know of a model
    check      the config's tensors against the files', before any memory is taken
    tokenizer  the tokenizer, checked against the embedding
    budget     what one rendering of a chat template may use
    sandbox    the jinja environment that chat templates run in
    template   chat templates, tried once when loaded
    load       all of that in order, then the weights through transformers
    quiet      transformers without its progress bars

Nothing in a checkpoint is trusted: each file is checked before anything is built from it.
"""

from __future__ import annotations

from longspan.model.load import Loaded, inspect, load
from longspan.model.shape import Layer, Shape
from longspan.model.template import render

__all__ = ["Layer", "Loaded", "Shape", "inspect", "load", "render"]
