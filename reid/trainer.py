"""One training run: batches, optimiser steps, and the state that resuming needs."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from reid.backbone import load_imagenet, unfold_batch_norms
from reid.checkpoint import load_initial
from reid.config import TrainConfig
from reid.datasets import TrainingSet
from reid.errors import CheckpointError, ConfigError
from reid.modality import Modality
from reid.model import Porsche, normalise
from reid.objective import Batch, loss_parts, pair_blocks
from reid.optimisation import average_weights, build_optimiser, learning_rate_factor
from reid.sampler import BatchSampler, IdentitySampler, Indices, PairSampler
from reid.torch_files import read_checkpoint
from reid.transforms import augment

CALIBRATION_PICTURES = 32
#: A GPU keeps the pictures themselves up to this size; beyond it they travel batch by batch.
MAX_RESIDENT_BYTES = 8 << 30


class Trainer:
    """One training run: network, its average, optimiser, and where it stands.

    Args:
        config: all settings.
        data: pictures to train on.
        fabric: devices, precision and the processes that share the work.

    Raises:
        ConfigError: too few vehicles or pairs for one batch.
        CheckpointError: the initial weights can't be loaded.
    """

    def __init__(self, config: TrainConfig, data: TrainingSet, fabric: Fabric) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.data = data
        self.fabric = fabric
        self.sampler = build_sampler(config, data)
        self.batches_per_epoch = len(self.sampler) // fabric.world_size
        if not self.batches_per_epoch:
            size = config.batch.vehicles if config.batch.sampling == "identities" else config.batch.pairs
            wanted = f"{size} a batch, {fabric.world_size} batches at a time"
            raise ConfigError(f"batch.sampling {config.batch.sampling}: {wanted} wanted, the data has too few")
        network = Porsche(config.model, len(data.repeats))
        if config.initial_weights is not None and not load_initial(network, config.initial_weights):
            load_imagenet(network.trunk, config.initial_weights)
            unfold_batch_norms(network.trunk, self._calibration())
        self.network: Porsche = network.to(memory_format=torch.channels_last)
        self.average: Porsche = copy.deepcopy(self.network).eval().to(fabric.device)
        optimiser = build_optimiser(self.network, config.optimiser)
        self.wrapped, self.optimiser = fabric.setup(self.network, optimiser)
        pictures = torch.from_numpy(data.pictures)
        self._pictures = fabric.to_device(pictures) if pictures.nbytes < MAX_RESIDENT_BYTES else pictures
        self.total_steps = config.epochs * self.batches_per_epoch
        self.step = 0
        self.epoch = 0
        self.pictures_seen = 0
        # Now, and not when weights are written: the checkout may move on while a run lasts.
        self.revision = revision()

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of this epoch's pictures."""
        part = 2 if self.epoch < self.config.batch.half_size_until * self.config.epochs else 1
        return self.config.model.height // part, self.config.model.width // part

    @property
    def learning_rate(self) -> float:
        """Of the heads, at this step; the trunk's is `backbone_factor` of it."""
        settings = self.config.optimiser
        return settings.learning_rate * learning_rate_factor(self.step / self.total_steps, settings)

    def _calibration(self) -> dict[Modality, Tensor]:
        """Pictures spread over the data, per modality, as `unfold_batch_norms` wants them."""
        members = {m: [i for i, own in enumerate(self.data.modalities) if own is m] for m in Modality}
        chosen = {m: own[:: max(1, len(own) // CALIBRATION_PICTURES)] for m, own in members.items() if own}
        return {m: normalise(torch.from_numpy(self.data.pictures[own])) for m, own in chosen.items()}

    def batches(self) -> Iterator[Batch]:
        """Yield this process's batches of the epoch, each prepared while the one before it is trained on."""
        with ThreadPoolExecutor(1) as pool:
            ahead: Future[Batch] | None = None
            for number, indices in enumerate(self._shares()):
                current, ahead = ahead, pool.submit(self._prepare, number, indices)
                if current is not None:
                    yield current.result()
            if ahead is not None:
                yield ahead.result()

    def _shares(self) -> Iterator[Indices]:
        """Every process takes its turn; all take equally many, or the last would wait for ever."""
        rank, world = self.fabric.global_rank, self.fabric.world_size
        for number, indices in enumerate(self.sampler.epoch(self.epoch)):
            if number % world == rank and number < self.batches_per_epoch * world:
                yield indices

    def _prepare(self, number: int, indices: Indices) -> Batch:
        key = (self.config.seed, self.epoch, number, self.fabric.global_rank, 2)
        generator = np.random.default_rng(key)
        images = {}
        for modality, chosen in indices.items():
            members = torch.tensor(chosen, device=self._pictures.device)
            pictures = self.fabric.to_device(self._pictures[members])
            augmented = augment(pictures, modality, self.config.augment, self.size, generator)
            images[modality] = normalise(augmented.permute(0, 2, 3, 1))
        order = list(chain.from_iterable(indices.values()))
        identities = self.fabric.to_device(torch.from_numpy(self.data.identities[order]))
        return Batch(images, identities, [self.data.views[i] for i in order])

    def train_batch(self, batch: Batch) -> dict[str, Tensor]:
        """Take one optimiser step per stage, each with its own forward, on the same pictures.

        Without `progressive`, one step for all stages together.

        Returns:
            Loss parts, averaged over the stages; scalars on the device, so that nobody waits for them.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * group["factor"]
        stages = range(len(self.config.model.stages))
        groups = [[stage] for stage in stages] if self.config.progressive else [list(stages)]
        sums: dict[str, Tensor] = {}
        for together in groups:
            for name, value in self._take_step(batch, together).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value / len(stages)
        self.step += 1
        # Few steps in, a short memory: the average must not stay at the weights it began with.
        decay = min(self.config.optimiser.ema_decay, self.step / (self.step + 10))
        average_weights(self.average, self.network, decay)
        return sums

    def _take_step(self, batch: Batch, stages: list[int]) -> dict[str, Tensor]:
        """One optimiser step on the sum of some stages' losses; returns its parts."""
        self.optimiser.zero_grad(set_to_none=True)
        sums: dict[str, Tensor] = {}
        for stage in stages:
            parts = self._stage_loss(batch, stage)
            loss = torch.stack(list(parts.values())).sum()
            self.fabric.backward(loss)
            for name, value in {"loss": loss, **parts}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value.detach()
        if self.config.optimiser.clip_norm:
            self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=self.config.optimiser.clip_norm)
        self.optimiser.step()
        return sums

    def _stage_loss(self, batch: Batch, stage: int) -> dict[str, Tensor]:
        matcher = self.config.model.matcher
        blocks = pair_blocks(batch.images, matcher.pairs) if matcher else []
        output = self.wrapped(batch.images, stage, blocks)
        return loss_parts(output, batch, self.config.loss, self.config.model.stages[stage].tiles, blocks)

    def start_epoch(self) -> None:
        """Make the epoch's chance (drop-out) its own, so that a resumed run draws what a straight one does."""
        torch.manual_seed(self.config.seed * 1_000_003 + self.epoch)
        self.network.train()

    def state(self) -> dict[str, object]:
        """Everything that resuming needs. Chance is a function of seed, epoch and batch: none is kept."""
        return {
            "format": "reid-training-2",
            "config": self.config.model_dump(mode="json"),
            "revision": self.revision,
            "epoch": self.epoch,
            "step": self.step,
            "pictures_seen": self.pictures_seen,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
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
            self.fabric.strategy.precision.load_state_dict(contents["precision"])
            self.epoch, self.step = int(contents["epoch"]), int(contents["step"])
            self.pictures_seen = int(contents["pictures_seen"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be resumed: {str(error).splitlines()[0]}") from error


def build_sampler(config: TrainConfig, data: TrainingSet) -> BatchSampler:
    """The sampler that `batch.sampling` names."""
    labels = (data.identities, data.modalities, data.views, config.batch)
    if config.batch.sampling == "pairs":
        return PairSampler(*labels, seed=config.seed)
    return IdentitySampler(*labels, repeats=data.repeats, seed=config.seed)


def revision() -> str:
    """Git commit of the code that runs, or `unknown`."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        here = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=here).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
