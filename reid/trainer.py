"""One training run: batches, optimiser steps, and the state that resuming needs."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

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

FORMAT = "reid-training-3"
#: Top-level keys that a resumed run may change: what is looked at, and weights that have been trained on since.
MAY_CHANGE = frozenset({"validation", "initial_weights"})
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
        #: Parts that earlier weights of ours did not cover, and of how many tensors.
        self.random_start = self._load_initial(network)
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

    def _load_initial(self, network: Porsche) -> Mapping[str, int]:
        path = self.config.initial_weights
        if path is None:
            return {}
        kept = load_initial(network, path)
        if kept is None:
            load_imagenet(network.trunk, path)
            if norms_are_folded(network.trunk):
                unfold_batch_norms(network.trunk, self._calibration())
        return kept or {}

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
        """Every process takes its turn; all take equally many, or one would wait for the others for ever."""
        order = self.sampler.epoch(self.epoch)
        turns = zip(*[order] * self.fabric.world_size, strict=False)
        for turn in islice(turns, self.batches_per_epoch):
            yield turn[self.fabric.global_rank]

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
        aligned = self.config.batch.pairing == "same_view"
        return Batch(images, identities, [self.data.views[i] if aligned else "" for i in order])

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
            # Half precision overflows now and then; its scaler then skips the step, so that is no error. Without
            # a scaler the loss is shown as nan from here on.
            norm = self.config.optimiser.clip_norm
            self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=norm, error_if_nonfinite=False)
        self.optimiser.step()
        return sums

    def _stage_loss(self, batch: Batch, stage: int) -> dict[str, Tensor]:
        matcher = self.config.model.matcher
        blocks = pair_blocks(batch.images, matcher.pairs) if matcher else []
        output = self.wrapped(batch.images, stage, blocks)
        return loss_parts(output, batch, self.config.loss, self.config.model.stages[stage].tiles, blocks)

    def start_epoch(self) -> None:
        """Make the epoch's chance (drop-out) its own, so that a resumed run draws what a straight one does.

        Each process has its own too: they drop different parts of different pictures.
        """
        sequence = np.random.SeedSequence((self.config.seed, self.epoch, self.fabric.global_rank, 4))
        torch.manual_seed(int(sequence.generate_state(1)[0]))
        self.network.train()

    def state(self) -> dict[str, Any]:
        """Everything that resuming needs. Chance is a function of seed, epoch and batch: none is kept."""
        return {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "identities": len(self.data.repeats),
            "batches_per_epoch": self.batches_per_epoch,
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
        """Go on from the start of the epoch after the last finished one, as the same run.

        Only the keys `MAY_CHANGE` may have other values than the run began with, since no step depends on them;
        everything else, the number of epochs with its schedule included, would make it another run.

        Raises:
            CheckpointError: not a training checkpoint, or one of another configuration or of other data; it names
                the first difference.
        """
        contents = read_checkpoint(path)
        if contents.get("format") != FORMAT:
            raise CheckpointError(f"{path}: can't be resumed: not a training checkpoint (wanted format {FORMAT})")
        changed = first_difference(_compared(contents), _compared(self.state()))
        if changed:
            raise CheckpointError(f"{path}: can't be resumed: {changed}")
        own = [{k: v for k, v in group.items() if k != "params"} for group in self.optimiser.param_groups]
        try:
            self.network.load_state_dict(contents["network"])
            self.average.load_state_dict(contents["average"])
            self.optimiser.load_state_dict(contents["optimiser"])
            # The file has settings of its own; those of the configuration count.
            for group, settings in zip(self.optimiser.param_groups, own, strict=True):
                group.update(settings)
            self.fabric.strategy.precision.load_state_dict(contents["precision"])
            self.epoch, self.step = int(contents["epoch"]), int(contents["step"])
            self.pictures_seen = int(contents["pictures_seen"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path}: can't be resumed: {str(error).splitlines()[0]}") from error


def norms_are_folded(trunk: nn.Module) -> bool:
    """Whether all its batch norms are the identity plus a bias: folded into the convolutions before them."""
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    return all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1).all() and (norm.weight == 1).all())
        for norm in norms
    )


def _compared(contents: Mapping[str, Any]) -> dict[str, object]:
    """What must not change between a run and its resumption: settings by dotted key, and the data's size."""
    config = {key: value for key, value in contents.get("config", {}).items() if key not in MAY_CHANGE}
    return _flat({**config, **{key: contents.get(key) for key in ("identities", "batches_per_epoch")}})


def _flat(values: object, prefix: str = "") -> dict[str, object]:
    """Leaves of nested dictionaries and lists by dotted key."""
    if isinstance(values, dict):
        inner = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, list):
        inner = [(str(index), value) for index, value in enumerate(values)]
    else:
        return {prefix: values}
    return {k: v for key, value in inner for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}


def first_difference(stored: Mapping[str, object], present: Mapping[str, object]) -> str:
    """Name the first key whose values differ, with both; empty if none does."""
    absent = "nothing"
    for key in (*present, *stored):
        before, now = stored.get(key, absent), present.get(key, absent)
        if before != now:
            return f"{key} was {before} and is {now} now"
    return ""


def build_sampler(config: TrainConfig, data: TrainingSet) -> BatchSampler:
    """The sampler that `batch.sampling` names."""
    labels = (data.identities, data.modalities, data.views, config.batch)
    if config.batch.sampling == "pairs":
        return PairSampler(*labels, repeats=data.repeats, seed=config.seed)
    return IdentitySampler(*labels, repeats=data.repeats, seed=config.seed)


def revision() -> str:
    """Git commit of the code that runs, or `unknown`."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        here = Path(__file__).parent
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=here).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
