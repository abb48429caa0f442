"""PORSCHE's network as far as embeddings go: trunk and auxiliary branches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.backbone import LAYERS, Trunk
from reid.config import ModelConfig, StageConfig
from reid.modality import Modality

# ImageNet's, in 0-255: the trunk starts from weights trained with them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_DEVIATION = (58.395, 57.12, 57.375)


@dataclass(frozen=True, slots=True)
class StageOutput:
    """What one stage says of a batch of B pictures.

    Attributes:
        maps: (B, D, h, w) projected map, whose h * w positions are POM's points.
        feature: (B, D) its average: what the triplet loss sees.
        neck: (B, D) the batch-normalised feature: the embedding before normalising.
        logits: (B, identities), or (B, 0) in a network without a classifier.
    """

    maps: Tensor
    feature: Tensor
    neck: Tensor
    logits: Tensor


class AuxiliaryBranch(nn.Module):
    """Projection, average, BN-neck and identity classifier of one stage.

    Args:
        channels: channels of the map it reads.
        dimension: D, channels of the projection and length of the feature.
        identities: classes of the classifier; 0 builds none (inference).
    """

    def __init__(self, channels: int, dimension: int, identities: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(channels, dimension, 1, bias=False),
            nn.BatchNorm2d(dimension),
            nn.ReLU(inplace=True),
            nn.Conv2d(dimension, dimension, 3, padding=1, bias=False),
            nn.BatchNorm2d(dimension),
            nn.ReLU(inplace=True),
        )
        self.neck = nn.BatchNorm1d(dimension)
        self.neck.bias.requires_grad = False
        self.classifier = nn.Linear(dimension, identities, bias=False) if identities else None
        if self.classifier is not None:
            nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, layer_map: Tensor) -> StageOutput:
        """Read a layer's map (B, C, h, w)."""
        maps = self.project(layer_map)  # (B, D, h, w)
        feature = maps.float().mean(dim=(2, 3))  # (B, D)
        neck = self.neck(feature)  # (B, D)
        logits = neck.new_zeros(len(neck), 0) if self.classifier is None else self.classifier(neck)
        return StageOutput(maps, feature, neck, logits)


class Porsche(nn.Module):
    """Trunk and one auxiliary branch per stage.

    Args:
        config: stages, backbone, which stages make the embedding.
        identities: classes to train on; 0 for inference.
    """

    def __init__(self, config: ModelConfig, identities: int = 0) -> None:
        super().__init__()
        self.config = config
        deepest = max((stage.layer for stage in config.stages), key=LAYERS.index)
        self.trunk = Trunk(config.backbone, deepest)
        self.branches = nn.ModuleList(self._branch(stage, identities) for stage in config.stages)

    def _branch(self, stage: StageConfig, identities: int) -> AuxiliaryBranch:
        return AuxiliaryBranch(self.trunk.channels(stage.layer), stage.dimension, identities)

    def forward(self, images: Mapping[Modality, Tensor], stage: int) -> StageOutput:
        """Run one training stage, on its tiles.

        Args:
            images: per modality (B_m, 3, H, W) float, normalised.
            stage: index into the configured stages.

        Returns:
            The stage's output for all pictures, in the mapping's order.
        """
        chosen = self.config.stages[stage]
        maps = self.trunk.layers(self.trunk.stem(images), chosen.tiles, chosen.layer)
        output: StageOutput = self.branches[stage](maps[chosen.layer])
        return output

    def embed_maps(self, stem_maps: Tensor) -> Tensor:
        """Embed pictures of any modality that have passed their stems, on whole maps.

        Args:
            stem_maps: (B, 64, H / 4, W / 4) float.

        Returns:
            (B, sum of the embedding stages' D) float, unit norm.
        """
        maps = self.trunk.layers(stem_maps)
        stages = [(self.branches[i], self.config.stages[i].layer) for i in self.config.embedding_stages]
        parts = [F.normalize(branch(maps[layer]).neck.float()) for branch, layer in stages]
        return F.normalize(torch.cat(parts, dim=1))

    def embed(self, images: Mapping[Modality, Tensor]) -> Tensor:
        """Embed normalised pictures, per modality (B_m, 3, H, W), in the mapping's order."""
        return self.embed_maps(self.trunk.stem(images))


def normalise(pixels: Tensor) -> Tensor:
    """Make network input of pictures.

    Args:
        pixels: (B, H, W, 3) uint8 RGB.

    Returns:
        (B, 3, H, W) float, ImageNet-normalised, channels last in memory.
    """
    mean = torch.tensor(PIXEL_MEAN, device=pixels.device)
    deviation = torch.tensor(PIXEL_DEVIATION, device=pixels.device)
    return ((pixels.float() - mean) / deviation).permute(0, 3, 1, 2)
