"""PORSCHE's network: trunk, auxiliary branches and point matchers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reid.backbone import LAYERS, Trunk
from reid.config import LayerName, MatcherConfig, ModelConfig, StageConfig
from reid.modality import Modality
from reid.point_matcher import Block, PointMatcher

ClassifierForm = Literal["shared", "per_modality"]

# ImageNet's, in 0-255: the trunk starts from weights trained with them.
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_DEVIATION = (58.395, 57.12, 57.375)


class StageOutput(NamedTuple):
    """What one stage says of a batch of B pictures.

    A named tuple, since what wraps a network for mixed precision and several devices refuses frozen dataclasses.

    Attributes:
        maps: (B, D, h, w) projected map.
        feature: (B, D) its average: what the triplet loss sees.
        neck: (B, D) the batch-normalised feature.
        logits: (B, identities), or (B, 0) in a network without a classifier.
        scores: per block of pairs (rows, columns) the matcher's logits; empty without a matcher.
    """

    maps: Tensor
    feature: Tensor
    neck: Tensor
    logits: Tensor
    scores: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What a deployed network says of B pictures.

    Attributes:
        embedding: (B, D) float of unit norm, for a search among many.
        tokens: (B, N, P, C) points for `Porsche.score`, for a short list; None without a matcher.
    """

    embedding: Tensor
    tokens: Tensor | None


class AuxiliaryBranch(nn.Module):
    """Projection, average, BN-neck and identity classifiers of one stage.

    Args:
        channels: channels of the map it reads.
        dimension: D, channels of the projection and length of the feature.
        identities: classes to tell apart; 0 builds no classifier (inference).
        form: one classifier for all modalities (PORSCHE's code) or one for each (its figure).
    """

    def __init__(self, channels: int, dimension: int, identities: int, form: ClassifierForm) -> None:
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
        names = ["shared"] if form == "shared" else [modality.value for modality in Modality]
        made = {name: nn.Linear(dimension, identities, bias=False) for name in names if identities}
        self.classifiers = nn.ModuleDict(made)
        for classifier in made.values():
            nn.init.normal_(classifier.weight, std=0.001)

    def forward(self, layer_map: Tensor) -> StageOutput:
        """Read a layer's map (B, C, h, w); classify nothing."""
        maps = self.project(layer_map)  # (B, D, h, w)
        feature = maps.float().mean(dim=(2, 3))  # (B, D)
        neck = self.neck(feature)  # (B, D)
        return StageOutput(maps, feature, neck, neck.new_zeros(neck.shape[0], 0))

    def classify(self, neck: Tensor, modalities: Mapping[Modality, slice]) -> Tensor:
        """(B, D) neck features, per modality a slice of the batch -> (B, identities) logits."""
        if "shared" in self.classifiers:
            logits: Tensor = self.classifiers["shared"](neck)
            return logits
        return torch.cat([self.classifiers[m.value](neck[own]) for m, own in modalities.items()])


class Porsche(nn.Module):
    """Trunk, and per stage an auxiliary branch and a point matcher.

    Args:
        config: stages, backbone, matcher, which stages make the embedding.
        identities: classes to train on; 0 for inference, which builds no more than it uses: the stages of the
            embedding, the one whose matcher scores, and the trunk as deep as these need.
    """

    def __init__(self, config: ModelConfig, identities: int = 0) -> None:
        super().__init__()
        self.config = config
        chosen = range(len(config.stages)) if identities else self._describing_stages
        self.trunk = Trunk(config.backbone, self._deepest(chosen))
        branches = {str(stage): self._branch(config.stages[stage], identities) for stage in chosen}
        self.branches = nn.ModuleDict(branches)
        matching = range(len(config.stages)) if identities else (config.matching_stage,)
        matchers = {str(stage): self._matcher(stage, config.matcher) for stage in matching if config.matcher}
        self.matchers = nn.ModuleDict(matchers)
        if not identities:
            self.register_load_state_dict_pre_hook(_leave_out_stages)  # type: ignore[no-untyped-call]

    @property
    def _describing_stages(self) -> list[int]:
        """Stages that a description needs."""
        matching = [self.config.matching_stage] if self.config.matcher else []
        return sorted({*self.config.embedding_stages, *matching})

    def _deepest(self, stages: Iterable[int]) -> LayerName:
        """The deepest layer that some stages read."""
        return max((self.config.stages[stage].layer for stage in stages), key=LAYERS.index)

    def _branch(self, stage: StageConfig, identities: int) -> AuxiliaryBranch:
        channels = self.trunk.channels(stage.layer)
        return AuxiliaryBranch(channels, stage.dimension, identities, self.config.classifier)

    def _matcher(self, stage: int, settings: MatcherConfig) -> PointMatcher:
        return PointMatcher(settings, self.config.points(stage), self.config.stages[stage].dimension)

    @property
    def matcher(self) -> PointMatcher | None:
        """The matcher that gives the reported score."""
        return self.matchers[str(self.config.matching_stage)] if self.config.matcher else None  # type: ignore[return-value]

    def forward(self, images: Mapping[Modality, Tensor], stage: int, blocks: Sequence[Block] = ()) -> StageOutput:
        """Run one training stage, on its tiles.

        Args:
            images: per modality (B_m, 3, H, W) float, normalised.
            stage: index into the configured stages.
            blocks: which pairs of the batch the stage's matcher scores.

        Returns:
            The stage's output for all pictures, in the mapping's order.
        """
        chosen, branch = self.config.stages[stage], self.branches[str(stage)]
        maps = self.trunk.layers(self.trunk.stem(images), chosen.tiles, chosen.layer)
        output: StageOutput = branch(maps[chosen.layer])
        scores: Sequence[Tensor] = ()
        if blocks and self.config.matcher:
            matcher = self.matchers[str(stage)]
            scores = matcher(matcher.encode(output.maps), blocks)  # type: ignore[operator]
        logits = branch.classify(output.neck, modality_slices(images))  # type: ignore[operator]
        return output._replace(logits=logits, scores=tuple(scores))

    def describe_maps(self, stem_maps: Tensor) -> Description:
        """Describe pictures of any modality that have passed their stems, on whole maps.

        Args:
            stem_maps: (B, 64, H / 4, W / 4) float.
        """
        outputs = self.read_stages(stem_maps, self._describing_stages)
        tokens = None if self.matcher is None else self.matcher.encode(outputs[self.config.matching_stage].maps)
        return Description(self._join(outputs), tokens)

    def embed_maps(self, stem_maps: Tensor) -> Tensor:
        """As `describe_maps`, but the embedding alone, (B, D); runs nothing that only tokens need."""
        return self._join(self.read_stages(stem_maps, self.config.embedding_stages))

    def read_stages(self, stem_maps: Tensor, stages: Sequence[int]) -> dict[int, StageOutput]:
        """Read whole maps by some stages' branches, no deeper than these need.

        Args:
            stem_maps: (B, 64, H / 4, W / 4) float.
            stages: indices of stages that were built.

        Returns:
            Per stage its output, without logits and scores.
        """
        layers = self.trunk.layers(stem_maps, until=self._deepest(stages))
        return {stage: self.branches[str(stage)](layers[self.config.stages[stage].layer]) for stage in stages}

    def _join(self, outputs: Mapping[int, StageOutput]) -> Tensor:
        """The embedding, (B, D), of its stages' outputs."""
        after = self.config.embedding_feature == "after_neck"
        chosen = [outputs[stage] for stage in self.config.embedding_stages]
        parts = [F.normalize((output.neck if after else output.feature).float()) for output in chosen]
        return F.normalize(torch.cat(parts, dim=1))

    def describe(self, images: Mapping[Modality, Tensor]) -> Description:
        """Describe normalised pictures, per modality (B_m, 3, H, W), in the mapping's order."""
        return self.describe_maps(self.trunk.stem(images))

    def embed(self, images: Mapping[Modality, Tensor]) -> Tensor:
        """The embedding alone, (B, D), of normalised pictures per modality, in the mapping's order."""
        return self.embed_maps(self.trunk.stem(images))


def _leave_out_stages(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a network for inference is loaded: drop the stages and layers that it does not build.

    Files once held every stage.
    """
    for module in ("branches", "trunk.shared"):
        built = tuple(f"{prefix}{module}.{name}." for name, _ in network.get_submodule(module).named_children())
        for key in [key for key in state if key.startswith(f"{prefix}{module}.") and not key.startswith(built)]:
            del state[key]


def modality_slices(images: Mapping[Modality, Tensor]) -> dict[Modality, slice]:
    """Where each modality's pictures lie in a batch that joins them."""
    slices, start = {}, 0
    for modality, batch in images.items():
        slices[modality] = slice(start, start + len(batch))
        start += len(batch)
    return slices


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
