"""Weights for inference, as one file."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import torch
from pydantic import ValidationError

from reid.config import ModelConfig
from reid.errors import CheckpointError
from reid.model import Porsche
from reid.torch_files import read_checkpoint, write_atomically

FORMAT = "reid-porsche-1"


def save_network(path: Path, network: Porsche, description: str) -> None:
    """Write what inference needs: no classifiers, half precision.

    Args:
        path: a `.pt` file.
        network: its weights are copied.
        description: how they came about, for whoever finds the file alone.
    """
    # Whatever a network for inference does not build is left out: classifiers, other stages' matchers.
    wanted = Porsche(network.config).state_dict().keys()
    state = {name: _half(value) for name, value in network.state_dict().items() if name in wanted}
    config = network.config.model_dump(mode="json")
    write_atomically(path, {"format": FORMAT, "model": config, "description": description, "state": state})


def _half(value: torch.Tensor) -> torch.Tensor:
    return value.detach().cpu().half() if value.is_floating_point() else value.detach().cpu()


def load_network(path: Path) -> tuple[Porsche, str]:
    """Read a network for inference.

    Args:
        path: a file of `save_network`.

    Returns:
        The network, in float32 and evaluation mode, and its model id.

    Raises:
        CheckpointError: no such file, not such a file, or broken.
    """
    contents = read_checkpoint(path)
    if contents.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not re-ID weights (wanted format {FORMAT})")
    try:
        network = Porsche(ModelConfig.model_validate(contents["model"]))
        network.load_state_dict(contents["state"])
    except (KeyError, RuntimeError, ValidationError) as error:
        raise CheckpointError(f"{path}: weights don't fit their model: {str(error).splitlines()[0]}") from error
    return network.eval(), model_id(path, network.config.name)


def model_id(path: Path, name: str) -> str:
    """Name and the first 8 hex digits of the file's SHA-256."""
    return f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"


def load_initial(network: Porsche, path: Path) -> dict[str, int] | None:
    """Start a network's training from weights of `save_network`, as far as they fit.

    What the file lacks (classifiers, other stages and layers, a matcher it was trained without) or has in another shape
    (a matcher of other points) keeps its random start.

    Args:
        network: changed in place.
        path: the file.

    Returns:
        What kept its random start, such as `matchers.0`, and how many tensors that is; None if the file is none
        of ours, and then nothing was changed.

    Raises:
        CheckpointError: no such file, broken, or of another backbone.
    """
    contents = read_checkpoint(path)
    if contents.get("format") != FORMAT:
        return None
    wanted, state = network.state_dict(), contents["state"]
    fitting = {k: v for k, v in state.items() if k in wanted and wanted[k].shape == v.shape}
    # Layers that inference did not need are not in the file; the first ones tell another backbone.
    shallow = ("trunk.stems.", "trunk.shared.layer1.")
    foreign = [
        k for k in wanted if k not in fitting and ((k in state and k.startswith("trunk.")) or k.startswith(shallow))
    ]
    if foreign:
        raise CheckpointError(f"{path}: weights of another backbone: no fitting {foreign[0]}")
    network.load_state_dict(fitting, strict=False)
    return _parts([name for name in wanted if name not in fitting], list(wanted))


def _parts(names: list[str], known: list[str]) -> dict[str, int]:
    """Count names by their part of the network: `matchers.0` where all of it is named, else one level deeper."""
    whole = Counter(_upper(name, 2) for name in known)
    named = Counter(_upper(name, 2) for name in names)
    return dict(Counter(_upper(name, 2 if named[_upper(name, 2)] == whole[_upper(name, 2)] else 3) for name in names))


def _upper(name: str, levels: int) -> str:
    return ".".join(name.split(".")[:levels])
