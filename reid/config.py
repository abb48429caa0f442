"""Training configuration. Unknown keys are refused; every key is read by the trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from reid.errors import ConfigError

LayerName = Literal["layer1", "layer2", "layer3", "layer4"]
#: Pixels of the stem's map per pixel of each layer's.
LAYER_STRIDES: dict[LayerName, int] = {"layer1": 1, "layer2": 2, "layer3": 4, "layer4": 8}


class Strict(BaseModel):
    """A frozen section whose unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class StageConfig(Strict):
    """One stage of progressive training: tiles per side, the layer it reads, its feature's length."""

    tiles: int = Field(default=1, ge=1)
    layer: LayerName = "layer3"
    dimension: int = Field(default=256, ge=1)


class MatcherConfig(Strict):
    """POM: the transformer that compares two pictures point by point. One is built per stage."""

    layers: int = Field(default=3, ge=1, description="decoder layers N; the encoder has N - 1")
    feed_forward: int = Field(default=2048, ge=1, description="hidden width of the encoder's layers")
    head: int = Field(default=2048, ge=1, description="hidden width of the deep matching head")
    dropout: float = Field(default=0.1, ge=0, lt=1)
    rows: int | None = Field(default=None, ge=1, description="points down a picture; the map's own height if empty")
    columns: int | None = Field(default=None, ge=1, description="points across; the map's own width if empty")
    channels: int | None = Field(default=None, ge=1, description="numbers of a point; the stage's dimension if empty")
    pairs: Literal["cross", "all"] = Field(
        default="cross", description="train on pairs of two modalities only, or also within one"
    )


class ModelConfig(Strict):
    """The network. `embedding_stages` are the stages whose features, joined, are the embedding."""

    name: str = "porsche"
    backbone: Literal["resnet18", "resnet50"] = "resnet18"
    height: int = Field(default=128, gt=0)
    width: int = Field(default=256, gt=0)
    stages: tuple[StageConfig, ...] = Field(default=(StageConfig(),), min_length=1)
    embedding_stages: tuple[int, ...] = Field(default=(0,), min_length=1)
    embedding_feature: Literal["after_neck", "before_neck"] = "after_neck"
    classifier: Literal["shared", "per_modality"] = "shared"
    matcher: MatcherConfig | None = None
    matching_stage: int = Field(default=0, ge=0, description="the stage whose matcher gives the reported score")

    @model_validator(mode="after")
    def _stages_exist(self) -> Self:
        if not all(0 <= index < len(self.stages) for index in self.embedding_stages):
            raise ValueError(f"embedding_stages {self.embedding_stages} must index the {len(self.stages)} stages")
        if self.matching_stage >= len(self.stages):
            raise ValueError(f"matching_stage {self.matching_stage} must index the {len(self.stages)} stages")
        return self

    @model_validator(mode="after")
    def _maps_divide(self) -> Self:
        self.refuse_size(self.height, self.width)
        return self

    def refuse_size(self, height: int, width: int) -> None:
        """Check that tiles and points divide every stage's map of pictures of this size.

        Raises:
            ValueError: naming the key that doesn't fit.
        """
        for stage in self.stages:
            stride = 4 * LAYER_STRIDES[stage.layer]
            # A tile must still divide evenly after the stem (4) and the stage's layers: 64 for the paper's stages.
            step = stage.tiles * stride
            if height % step or width % step:
                raise ValueError(
                    f"height x width {height} x {width}: both must be multiples of {step} for {stage.tiles} tiles "
                    f"a side at {stage.layer}"
                )
            wanted = self.matcher or MatcherConfig()
            for key, points, side in (("rows", wanted.rows, height), ("columns", wanted.columns, width)):
                # Points are averages of equal blocks of the map.
                if points and side // stride % points:
                    raise ValueError(
                        f"matcher.{key} {points} must divide the {side // stride} {key} of the {stage.layer} map "
                        f"of {height} x {width} pictures"
                    )

    @property
    def dimension(self) -> int:
        """Length of the embedding."""
        return sum(self.stages[index].dimension for index in self.embedding_stages)

    def points(self, stage: int) -> tuple[int, int]:
        """Rows and columns of the points that a stage's matcher compares."""
        stride = 4 * LAYER_STRIDES[self.stages[stage].layer]
        matcher = self.matcher or MatcherConfig()
        return matcher.rows or self.height // stride, matcher.columns or self.width // stride


class SourceConfig(Strict):
    """One folder with `samples.csv`. Its vehicles are others than any other folder's."""

    path: Path
    split: str | None = "train"
    repeats: int = Field(default=1, ge=1, description="how often each vehicle, or each of its pairs, comes in an epoch")


class BatchConfig(Strict):
    """What a batch holds.

    `identities`: P x K, `vehicles` identities, of each up to `images_per_modality` pictures a modality.
    `pairs`: `pairs` shots of a visible and an infrared picture of one vehicle, over every pair of modalities
    the data has; a picture without a partner comes alone.
    """

    sampling: Literal["identities", "pairs"] = "identities"
    vehicles: int = Field(default=8, ge=2)
    images_per_modality: int = Field(default=2, ge=1)
    pairs: int = Field(default=64, ge=2)
    pairing: Literal["same_view", "any"] = "any"
    half_size_until: float = Field(
        default=0.0, ge=0, le=1, description="part of the epochs at half height and width: a quarter of the work"
    )


class AugmentConfig(Strict):
    """Chances in 0-1 and strengths of the augmentations. All zero: pictures as they are."""

    flip: float = Field(default=0.5, ge=0, le=1)
    box_jitter: float = Field(default=0.08, ge=0, le=0.5, description="shift and scale of the box, part of its side")
    crop_padding: int = Field(default=0, ge=0, description="shift by up to so many pixels: pad and crop")
    low_resolution: float = Field(default=0.5, ge=0, le=1)
    low_resolution_height: int = Field(default=20, ge=4, description="smallest height pictures are shrunk to")
    erasing: float = Field(default=0.4, ge=0, le=1)
    channel: float = Field(default=0.3, ge=0, le=1, description="visible only: one channel or gray in place of three")
    photometric: float = Field(default=0.5, ge=0, le=1, description="gain and gamma; infrared also contrast and noise")
    blur: float = Field(default=0.2, ge=0, le=1)


class LossConfig(Strict):
    """Weights of the loss parts."""

    identity: float = Field(default=1.0, ge=0)
    triplet: float = Field(default=0.4, ge=0)
    matching: float = Field(default=1.0, ge=0, description="POM's; needs model.matcher")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    consistency: float = Field(
        default=0.01, ge=0, description="share of the matching loss; counts with batch.pairing: same_view"
    )
    consistency_form: Literal["patch", "pooled"] = "patch"


class OptimiserConfig(Strict):
    """AdamW or SGD, a linear warm-up, then half a cosine to zero or steps down."""

    name: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=5e-4, gt=0)
    backbone_factor: float = Field(default=1.0, gt=0, description="learning rate of the trunk, as a multiple")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD's; AdamW has its own")
    nesterov: bool = Field(default=True, description="SGD with momentum only")
    weight_decay: float = Field(default=5e-4, ge=0)
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="part of all steps")
    milestones: tuple[float, ...] = Field(default=(0.3, 0.6), description="`steps`: parts of all steps")
    step_factor: float = Field(default=0.1, gt=0, le=1, description="`steps`: multiplies the rate at each")
    clip_norm: float = Field(default=16.0, ge=0, description="0: gradients are not clipped")
    ema_decay: float = Field(default=0.99, ge=0, lt=1, description="0: no averaging of weights")


class ValidationConfig(Strict):
    """An early look at retrieval, on a split that is never the test split."""

    path: Path
    split: str = "val"
    every_epochs: int = Field(default=5, ge=1)

    @field_validator("split")
    @classmethod
    def _is_not_test(cls, split: str) -> str:
        if split == "test":
            raise ValueError("test is for the last figure alone: what looks at it while training has chosen by it")
        return split


class TrainConfig(Strict):
    """All of a training run."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    validation: ValidationConfig | None = None
    model: ModelConfig = ModelConfig()
    batch: BatchConfig = BatchConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    epochs: int = Field(default=40, ge=1)
    seed: int = Field(default=0, ge=0)
    initial_weights: Path | None = Field(
        default=None, description="weights of an earlier run of ours, or torchvision's ImageNet state dict"
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    progressive: bool = Field(default=True, description="a step per stage and batch; else one step for all stages")

    @model_validator(mode="after")
    def _half_size_fits(self) -> Self:
        if self.batch.half_size_until:
            try:
                self.model.refuse_size(self.model.height // 2, self.model.width // 2)
            except ValueError as error:
                raise ValueError(f"batch.half_size_until: at half size, model.{error}") from error
            if self.model.matcher and not (self.model.matcher.rows and self.model.matcher.columns):
                raise ValueError(
                    "batch.half_size_until: model.matcher needs rows and columns, or its points would change"
                )
        return self


def load_config(path: Path, **overrides: object) -> TrainConfig:
    """Read a YAML configuration; its paths are relative to the working directory.

    Args:
        path: the file.
        overrides: top-level keys to replace; those that are None are left alone.

    Returns:
        The checked configuration.

    Raises:
        ConfigError: no such file, not YAML, or a key that is unknown or out of range, which it names.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(values).__name__}")
    given = {key: value for key, value in overrides.items() if value is not None}
    try:
        return TrainConfig.model_validate({**values, **given})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """One line for the first complaint: key, what is wanted, value."""
    detail = error.errors()[0]
    key = ".".join(str(part) for part in detail["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{key}: {detail['msg']}, got {detail['input']!r}{more}"
