"""How weights move: parameter groups, learning rates, the moving average."""

from __future__ import annotations

import math

import torch
from torch import nn

from reid.config import OptimiserConfig


def build_optimiser(network: nn.Module, settings: OptimiserConfig) -> torch.optim.Optimizer:
    """Trunk and heads in groups of their own; norms and biases without weight decay."""
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    groups = []
    for of_trunk, factor in ((True, settings.backbone_factor), (False, 1.0)):
        for decays in (True, False):
            chosen = [p for n, p in named if n.startswith("trunk.") is of_trunk and (p.ndim > 1) is decays]
            decay = settings.weight_decay if decays else 0.0
            groups.append({"params": chosen, "factor": factor, "weight_decay": decay})
    if settings.name == "sgd":
        momentum, nesterov = settings.momentum, settings.nesterov and settings.momentum > 0
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=momentum, nesterov=nesterov)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def learning_rate_factor(progress: float, settings: OptimiserConfig) -> float:
    """Linear warm-up from 0.01, then half a cosine to zero, or steps.

    Args:
        progress: part of all steps done, 0-1.
        settings: warm-up, schedule, milestones.
    """
    if progress < settings.warmup:
        return 0.01 + 0.99 * progress / settings.warmup
    if settings.schedule == "steps":
        return float(settings.step_factor ** sum(progress >= milestone for milestone in settings.milestones))
    return 0.5 * (1 + math.cos(math.pi * (progress - settings.warmup) / (1 - settings.warmup)))


@torch.no_grad()
def average_weights(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move an exponential moving average towards a network, statistics of batch norms included.

    Args:
        average: changed in place.
        network: of the same shape.
        decay: part of the average that stays, 0-1.
    """
    current, averaged = network.state_dict(), average.state_dict()
    floats = [name for name, value in averaged.items() if value.is_floating_point()]
    torch._foreach_lerp_([averaged[name] for name in floats], [current[name] for name in floats], 1 - decay)
    for name in averaged.keys() - floats:
        averaged[name].copy_(current[name])
