"""A small network and its batches, the same from every call, and how far two of them are apart."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

STEPS = 20
TOLERANCE = 1e-5  # of the distance moved


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers with a normalisation between them."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)).to(dtype)


def batch(step: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """What is learnt at one step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 6, generator=generator)
    return x.to(dtype), (x[:, :3] * x[:, 3:]).to(dtype)


def loss_of(model: nn.Module, step: int) -> Tensor:
    """The mean squared error on the batch of that step."""
    x, y = batch(step, next(model.parameters()).dtype)
    return nn.functional.mse_loss(model(x), y)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: range = range(STEPS), scheduler=None
) -> list[float]:
    """As every script of torch does; the losses."""
    losses = []
    for step in steps:
        optimizer.zero_grad()
        loss = loss_of(model, step)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def twins(dtype: torch.dtype = torch.float32) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """The same network three times: to be trained here, to be trained there, and as it was."""
    one = network(dtype)
    return one, copy.deepcopy(one), copy.deepcopy(one)


def difference(one: nn.Module, other: nn.Module, start: nn.Module) -> float:
    """The largest difference of any parameter, over the largest distance that any moved."""
    apart = max((a - b).abs().max().item() for a, b in zip(one.parameters(), other.parameters(), strict=True))
    moved = max((a - b).abs().max().item() for a, b in zip(one.parameters(), start.parameters(), strict=True))
    assert moved > 0
    return apart / moved


def decay_groups(model: nn.Module, **matrices) -> list[dict]:
    """Weight decay for matrices, none for the rest: what every transformer does."""
    named = list(model.named_parameters())
    return [
        {"params": [(name, p) for name, p in named if p.ndim >= 2], "weight_decay": 0.3, **matrices},
        {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
