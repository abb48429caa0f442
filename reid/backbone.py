"""Trunk: one stem per modality, then one ResNet shared by all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision import models

from reid.config import LayerName
from reid.errors import CheckpointError
from reid.layers import run_on_tiles
from reid.modality import Modality
from reid.torch_files import read_checkpoint

BackboneName = Literal["resnet18", "resnet50"]
LAYERS: tuple[LayerName, ...] = get_args(LayerName)
STEM_CHANNELS = 64


class Stem(nn.Sequential):
    """The first convolution of a ResNet, of one modality's own: (B, 3, H, W) to (B, 64, H / 4, W / 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("conv1", nn.Conv2d(3, STEM_CHANNELS, 7, stride=2, padding=3, bias=False))
        self.add_module("bn1", nn.BatchNorm2d(STEM_CHANNELS))
        self.add_module("relu", nn.ReLU(inplace=True))
        self.add_module("maxpool", nn.MaxPool2d(3, stride=2, padding=1))


class Trunk(nn.Module):
    """Modality stems and the shared layers up to the deepest one that is read; no more is built.

    Args:
        backbone: which ResNet.
        deepest: the last shared layer to build.
    """

    def __init__(self, backbone: BackboneName, deepest: LayerName) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({modality.value: Stem() for modality in Modality})
        network = models.get_model(backbone, weights=None)
        self.names = LAYERS[: LAYERS.index(deepest) + 1]
        self.shared = nn.ModuleDict({name: getattr(network, name) for name in self.names})

    def stem(self, images: Mapping[Modality, Tensor]) -> Tensor:
        """Run each modality through its own stem.

        Args:
            images: per modality (B_m, 3, H, W) float, normalised; H and W multiples of 4.

        Returns:
            (sum of B_m, 64, H / 4, W / 4), in the mapping's order.
        """
        return torch.cat([self.stems[modality.value](batch) for modality, batch in images.items()])

    def layers(self, maps: Tensor, tiles: int = 1, until: LayerName | None = None) -> dict[str, Tensor]:
        """Run the shared layers.

        Args:
            maps: (B, 64, H / 4, W / 4) float, from `stem`.
            tiles: tiles per side (training only); 1 at inference.
            until: last layer to run; all that were built when None.

        Returns:
            The map after each layer that ran, by name.
        """
        outputs: dict[str, Tensor] = {}
        for name in self.names:
            maps = outputs[name] = run_on_tiles(self.shared[name], maps, tiles)
            if name == until:
                break
        return outputs

    def channels(self, layer: LayerName) -> int:
        """Channels of a layer's map."""
        convolutions = [m for m in self.shared[layer].modules() if isinstance(m, nn.Conv2d)]
        return max(convolution.out_channels for convolution in convolutions)


def load_imagenet(trunk: Trunk, path: Path) -> None:
    """Start the trunk from torchvision's ImageNet ResNet; every stem gets the same first convolution.

    Args:
        trunk: changed in place.
        path: a state dict with torchvision's names (`conv1.weight`, `layer1.0.bn1.bias`, ...).

    Raises:
        CheckpointError: no such file, not a state dict, or one of another network.
    """
    state = read_checkpoint(path)
    stem = {k: v for k, v in state.items() if k.startswith(("conv1.", "bn1."))}
    shared = {k: v for k, v in state.items() if k.startswith(trunk.names)}
    try:
        for module in trunk.stems.values():
            module.load_state_dict(stem)
        trunk.shared.load_state_dict(shared)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not an ImageNet state dict for this backbone: {reason}") from error


@torch.no_grad()
def unfold_batch_norms(trunk: Trunk, images: Mapping[Modality, Tensor]) -> None:
    """Give batch norms that were folded away the statistics they would have had.

    A folded norm is the identity plus a bias. In training it would scale its input to unit variance, which
    is not what ImageNet training left there, and the pre-trained features would be lost on the first step.
    Here its mean and deviation over some pictures become both its statistics and its affine part: in
    evaluation the network computes what it did, in training it starts from there.

    Args:
        trunk: changed in place, left in the mode it was in.
        images: per modality (B_m, 3, H, W) float, a few dozen.
    """
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(_unfold) for norm in norms]
    training = trunk.training
    trunk.eval()
    trunk.layers(trunk.stem(images))
    trunk.train(training)
    for hook in hooks:
        hook.remove()


def _unfold(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Forward pre-hook: rewrite `norm` so that its evaluation output for any input stays the same."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        return
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    offset = norm.bias - norm.running_mean * scale
    variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3))
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(scale * (variance + norm.eps).sqrt())
    norm.bias.copy_(offset + mean * scale)
