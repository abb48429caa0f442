"""The network that `detector.train` trains: a pretrained YOLO with its class rows cut down to vehicles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from detector.networks import LOADER_ERRORS, DetectorError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class MixedPrecisionNetwork(DetectionModel):  # type: ignore[misc]  # the library is untyped
    """A detection network whose convolutions train in bfloat16 on a CPU, and whose loss stays in float32.

    The library's own mixed precision refuses CPUs, and would compute the loss in bfloat16 too: box sides are
    expected values over 16 bins, and 8 bits of mantissa move them by half a bin of a small vehicle.
    """

    def predict(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as the library declares it
        """Run the network; in training under bfloat16, with float32 results."""
        if not self.training:
            return super().predict(x, *args, **kwargs)
        with torch.autocast("cpu", torch.bfloat16):
            result = super().predict(x.contiguous(memory_format=torch.channels_last), *args, **kwargs)
        return _in_float32(result)


class VehicleTrainer(DetectionTrainer):  # type: ignore[misc]  # the library is untyped
    """Ultralytics' trainer for a network that is ready made, so that no weight is lost in rebuilding it."""

    def __init__(self, network: nn.Module, overrides: dict[str, Any]) -> None:
        super().__init__(overrides=overrides)
        self.model = network

    def setup_model(self) -> None:
        """The network is there already: nothing to load and no checkpoint to go on from."""


def vehicle_network(weights: Path, class_names: Sequence[str], pictures: Tensor) -> nn.Module:
    """Load a detector for training, keeping what it knows of `class_names` and dropping its other classes.

    Args:
        weights: A torch checkpoint whose classes include all of `class_names`.
        class_names: The classes of the new head, in order.
        pictures: (N, 3, H, W) float32 RGB in 0-1: examples of what it will see, used where the checkpoint's batch
            normalisation was folded away.

    Raises:
        DetectorError: The file is no torch checkpoint of Ultralytics'.
        KeyError: The checkpoint lacks one of the classes.
    """
    try:
        source, _ = load_checkpoint(weights)
    except LOADER_ERRORS as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise DetectorError(f"{weights}: not a checkpoint to train from: {line}") from error
    source = source.float().eval()
    network: nn.Module = MixedPrecisionNetwork(source.yaml, nc=len(source.names), verbose=False)
    copy_weights(source, network)
    if not any(isinstance(module, nn.BatchNorm2d) for module in source.modules()):
        restore_normalisation(network, pictures)
    keep_classes(network, source.names, class_names)
    return network.to(memory_format=torch.channels_last)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy weights by name; a convolution's folded bias goes to the batch normalisation that follows it."""
    have = source.state_dict()
    with torch.no_grad():
        for name, value in target.state_dict().items():
            given = have.get(name, have.get(name.replace("bn.bias", "conv.bias")))
            if given is not None and given.shape == value.shape:
                value.copy_(given)


def restore_normalisation(network: nn.Module, pictures: Tensor) -> None:
    """Give every batch normalisation the statistics of `pictures`, and the scale and shift that undo them.

    A checkpoint with folded normalisation has convolutions with bias only. Trained as it is, its layers would see
    identity statistics replaced by the batch's, which changes every activation at once. With these statistics the
    network computes what it did before, in training as in evaluation.
    """

    def measure(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.data = (variance + norm.eps).sqrt()
        norm.bias.data += mean

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    network.eval()
    with torch.no_grad():
        network(pictures)
    for hook in hooks:
        hook.remove()


def keep_classes(network: Any, names: dict[int, str], kept: Sequence[str]) -> None:  # noqa: ANN401  # untyped library
    """Cut the head's class outputs down to `kept`, with their pretrained rows."""
    number_of = {name: number for number, name in names.items()}
    rows = [number_of[name] for name in kept]
    head = network.model[-1]
    for branch in head.cv3:
        branch[-1] = _rows_of(branch[-1], rows)
    head.nc = network.nc = len(kept)
    head.no = head.nc + 4 * head.reg_max
    network.names = dict(enumerate(kept))


def _rows_of(layer: nn.Conv2d, rows: list[int]) -> nn.Conv2d:
    if layer.bias is None:
        raise ValueError("the head's last convolution has no bias: not a YOLO detection head")
    smaller = nn.Conv2d(layer.in_channels, len(rows), 1)
    smaller.weight.data = layer.weight.data[rows].clone()
    smaller.bias.data = layer.bias.data[rows].clone()  # type: ignore[union-attr]  # made with a bias above
    return smaller


def _in_float32(value: Any) -> Any:  # noqa: ANN401  # nested containers of tensors
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _in_float32(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_in_float32(item) for item in value)
    return value
