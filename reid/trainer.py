"""One training run: batches, losses, optimiser steps, and the state that resuming needs."""

from __future__ import annotations

import copy
import math
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from reid.backbone import load_imagenet, unfold_batch_norms
from reid.config import LossConfig, OptimiserConfig, TrainConfig
from reid.datasets import TrainingSet
from reid.embedder import prepare_crop
from reid.errors import CheckpointError, ConfigError
from reid.losses import consistency_loss, weighted_triplet_loss
from reid.modality import Modality
from reid.model import Porsche, StageOutput, normalise
from reid.sampler import IdentitySampler
from reid.torch_files import read_checkpoint
from reid.transforms import augment

CALIBRATION_PICTURES = 32


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures of several modalities.

    Attributes:
        pixels: per modality (B_m, H, W, 3) uint8.
        identities: (B,) int64, in the mapping's order.
        views: B view labels.
    """

    pixels: dict[Modality, Tensor]
    identities: Tensor
    views: list[str]


class Trainer:
    """One training run: network, its average, optimiser, and where it stands.

    Args:
        config: all settings.
        data: pictures to train on.
        device: where to compute.
    """

    def __init__(self, config: TrainConfig, data: TrainingSet, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.data = data
        self.device = device
        self.sampler = IdentitySampler(
            data.identities,
            data.modalities,
            data.views,
            config.batch,
            repeats=data.repeats,
            seed=config.seed,
        )
        if not len(self.sampler):
            raise ConfigError(f"batch.vehicles: {config.batch.vehicles} wanted, the data has fewer vehicles")
        self.network = Porsche(config.model, len(data.repeats))
        if config.initial_weights is not None:
            load_imagenet(self.network.trunk, config.initial_weights)
            unfold_batch_norms(self.network.trunk, self._calibration())
        self.network.to(device).to(memory_format=torch.channels_last)
        self.average = copy.deepcopy(self.network).eval()
        self.optimiser = build_optimiser(self.network, config.optimiser)
        self.total_steps = config.epochs * len(self.sampler)
        self.step = 0
        self.epoch = 0
        # Now, and not when weights are written: the checkout may move on while a run lasts.
        self.revision = revision()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of this epoch's pictures."""
        part = 2 if self.epoch < self.config.batch.half_size_until * self.config.epochs else 1
        return self.config.model.height // part, self.config.model.width // part

    def _calibration(self) -> dict[Modality, Tensor]:
        """Pictures spread over the data, per modality, as `unfold_batch_norms` wants them."""
        members = {m: [i for i, own in enumerate(self.data.modalities) if own is m] for m in Modality}
        chosen = {m: own[:: max(1, len(own) // CALIBRATION_PICTURES)] for m, own in members.items() if own}
        return {m: normalise(torch.from_numpy(self.data.pictures[own])) for m, own in chosen.items()}

    def batches(self) -> Iterator[Batch]:
        """Yield the epoch's batches, each prepared while the one before it is trained on."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Batch] | None = None
            for number, indices in enumerate(self.sampler.epoch(self.epoch)):
                current, ahead = ahead, pool.submit(self._prepare, number, indices)
                if current is not None:
                    yield current.result()
            if ahead is not None:
                yield ahead.result()

    def _prepare(self, number: int, indices: Mapping[Modality, list[int]]) -> Batch:
        generator = np.random.default_rng((self.config.seed, self.epoch, number, 2))
        pixels = {
            modality: np.stack([self._picture(i, modality, generator) for i in chosen])
            for modality, chosen in indices.items()
        }
        order = list(chain.from_iterable(indices.values()))
        views = [self.data.views[i] for i in order]
        tensors = {modality: torch.from_numpy(stack) for modality, stack in pixels.items()}
        return Batch(tensors, torch.from_numpy(self.data.identities[order]), views)

    def _picture(self, index: int, modality: Modality, generator: np.random.Generator) -> NDArray[np.uint8]:
        picture = augment(self.data.pictures[index], modality, self.config.augment, generator)
        return prepare_crop(picture, *self.size)

    def train_batch(self, batch: Batch) -> dict[str, float]:
        """Take one optimiser step per stage, each with its own forward, on the same pictures.

        Returns:
            Loss parts, averaged over the stages.
        """
        self._set_learning_rate()
        images = {m: normalise(pixels.to(self.device)) for m, pixels in batch.pixels.items()}
        sums: dict[str, float] = {}
        for stage in range(len(self.config.model.stages)):
            parts = self._train_stage(images, batch, stage)
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + value / len(self.config.model.stages)
        self.step += 1
        # Few steps in, a short memory: the average must not stay at the weights it began with.
        decay = min(self.config.optimiser.ema_decay, self.step / (self.step + 10))
        average_weights(self.average, self.network, decay)
        return sums

    def _train_stage(self, images: Mapping[Modality, Tensor], batch: Batch, stage: int) -> dict[str, float]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            output = self.network(images, stage)
        tiles = self.config.model.stages[stage].tiles
        parts = loss_parts(output, batch, self.config.loss, tiles)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.stack(list(parts.values())).sum()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip_norm)
        self.optimiser.step()
        return {"loss": total.item(), **{name: value.item() for name, value in parts.items()}}

    def _set_learning_rate(self) -> None:
        settings = self.config.optimiser
        factor = learning_rate_factor(self.step / self.total_steps, settings.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = settings.learning_rate * group["factor"] * factor

    def state(self) -> dict[str, object]:
        """Everything that resuming needs. Chance is a function of seed, epoch and batch: none is kept."""
        return {
            "format": "reid-training-1",
            "config": self.config.model_dump(mode="json"),
            "revision": self.revision,
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def resume(self, path: Path) -> None:
        """Go on from the start of the epoch after the last finished one.

        Raises:
            CheckpointError: not a training checkpoint, or one of other data or another network.
        """
        contents = read_checkpoint(path)
        try:
            self.network.load_state_dict(contents["network"])
            self.average.load_state_dict(contents["average"])
            self.optimiser.load_state_dict(contents["optimiser"])
            self.epoch, self.step = int(contents["epoch"]), int(contents["step"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be resumed: {str(error).splitlines()[0]}") from error


def build_optimiser(network: Porsche, settings: OptimiserConfig) -> torch.optim.Optimizer:
    """Trunk and heads in groups of their own; norms and biases without weight decay."""
    groups = []
    for prefix, factor in (("trunk.", settings.backbone_factor), ("branches.", 1.0)):
        named = [(n, p) for n, p in network.named_parameters() if n.startswith(prefix) and p.requires_grad]
        for decays in (True, False):
            chosen = [parameter for _, parameter in named if (parameter.ndim > 1) is decays]
            decay = settings.weight_decay if decays else 0.0
            groups.append({"params": chosen, "factor": factor, "weight_decay": decay})
    if settings.name == "sgd":
        momentum = settings.momentum
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, nesterov=momentum > 0)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear warm-up from 0.01, then half a cosine to zero.

    Args:
        progress: part of all steps done, 0-1.
        warmup: part of all steps that warm up, 0-1.
    """
    if progress < warmup:
        return 0.01 + 0.99 * progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def loss_parts(output: StageOutput, batch: Batch, weights: LossConfig, tiles: int) -> dict[str, Tensor]:
    """Weighted parts whose sum is the loss of one stage.

    Args:
        output: of all B pictures.
        batch: their identities and views.
        weights: of the parts.
        tiles: the stage's tiles per side, for patch consistency.
    """
    identities = batch.identities.to(output.feature.device)
    smoothing = weights.label_smoothing
    identity = F.cross_entropy(output.logits.float(), identities, label_smoothing=smoothing)
    parts = {
        "identity": weights.identity * identity,
        "triplet": weights.triplet * weighted_triplet_loss(output.feature, identities),
    }
    first, second = aligned_pairs(batch)
    if weights.consistency and first:
        consistency = consistency_loss(output.maps[first], output.maps[second], tiles, weights.consistency_form)
        share = sum(part.detach() for part in parts.values()) / consistency.detach().clamp_min(1e-6)
        parts["consistency"] = weights.consistency * share * consistency
    return parts


def aligned_pairs(batch: Batch) -> tuple[list[int], list[int]]:
    """Positions of a visible picture and an infrared one of the same vehicle and (known) view."""
    visible = len(batch.pixels.get(Modality.VISIBLE, ()))
    keys = list(zip(batch.identities.tolist(), batch.views, strict=True))
    index = {key: position for position, key in enumerate(keys[:visible]) if key[1]}
    pairs = [(index[key], visible + offset) for offset, key in enumerate(keys[visible:]) if key in index]
    return [first for first, _ in pairs], [second for _, second in pairs]


@torch.no_grad()
def average_weights(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average towards a network, statistics of batch norms included.

    Args:
        average: changed in place.
        network: of the same shape.
        decay: part of the average that stays, 0-1.
    """
    current = network.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], 1 - decay)
        else:
            value.copy_(current[name])


def revision() -> str:
    """Git commit of the code that runs, or `unknown`."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        here = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=here).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
