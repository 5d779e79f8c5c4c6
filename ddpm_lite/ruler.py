"""The ruler: a small classifier whose penultimate layer gives the features that metrics compare."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import require
from .data import Images, to_unit

__all__ = ["Ruler", "fit_ruler"]


class Ruler(nn.Module):
    """Three convolutions, a pooled layer of `features`, a linear classifier.

    Input: whole levels [B,C,H,W] (uint8 or int64, 0..levels-1); scaling happens inside, so that
    generated and real images cannot be prepared differently.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        levels: int,
        width: int = 32,
        features: int = 16,
        classes: int = 10,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        require.shape(shape)
        require.whole("levels", levels, 2)
        for name, size in (("width", width), ("features", features), ("classes", classes)):
            require.whole(name, size)
        require.real("dropout", dropout, 0, 1)
        self.shape, self.levels = (shape[0], shape[1], shape[2]), levels
        self.spec = {
            "class": "Ruler",
            "shape": list(shape),
            "levels": levels,
            "width": width,
            "features": features,
            "classes": classes,
            "dropout": dropout,
        }
        # A constant second channel tells "outside" (zero padding) from "black".
        self.conv1 = nn.Conv2d(shape[0] + 1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.drop = nn.Dropout(dropout)
        height, columns = (-(-s // 2) for s in shape[1:])  # after one pooling, rounded up
        self.cells = (min(height, 4), min(columns, 4))
        self.squeeze = nn.Linear(2 * width * self.cells[0] * self.cells[1], features)
        self.classify = nn.Linear(features, classes)

    def features(self, x: Tensor) -> Tensor:
        """Levels [B,C,H,W] to features [B,F]: the layer before the classifier."""
        if tuple(x.shape[1:]) != self.shape or x.is_floating_point():
            raise ValueError(
                f"the ruler reads whole levels of shape [B, {', '.join(map(str, self.shape))}], "
                f"not {x.dtype}{list(x.shape)}: use to_levels first"
            )
        if len(x) and not 0 <= int(x.min()) <= int(x.max()) < self.levels:
            raise ValueError(f"the ruler reads levels 0..{self.levels - 1}: look at x")
        h = to_unit(x, self.levels, self.conv1.weight.dtype)
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1)  # [B,C+1,H,W]
        h = F.relu(self.conv1(h))
        h = F.max_pool2d(F.relu(self.conv2(h)), 2, ceil_mode=True)  # [B,width,H/2,W/2]
        h = F.relu(self.conv3(self.drop(h)))  # [B,2*width,H/2,W/2]
        h = F.adaptive_avg_pool2d(h, self.cells).flatten(1)
        return F.silu(self.squeeze(self.drop(h)))  # [B,F]; ReLU leaves several of 16 dead

    def forward(self, x: Tensor) -> Tensor:
        """Levels [B,C,H,W] to logits [B,classes]."""
        logits: Tensor = self.classify(self.drop(self.features(x)))
        return logits


def fit_ruler(
    images: Images,
    *,
    width: int = 32,
    features: int = 16,
    classes: int = 10,
    steps: int = 600,
    batch: int = 64,
    lr: float = 3e-3,
    smoothing: float = 0.1,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Ruler:
    """Train a Ruler on `images` (the ruler split, and nothing else), in evaluation mode.

    AdamW, one-cycle rate, and every batch bent by small random rotations, scales and shifts: 300
    digits are few. Labels are smoothed by `smoothing`; 0 where its confidence is to be read as a
    probability. The digits take seconds on one thread. Initial weights, batches and their bending
    are drawn on the CPU, dropout on `device`.
    """
    require.whole("classes", classes)
    if images.y.numel() == 0 or not 0 <= int(images.y.min()) <= int(images.y.max()) < classes:
        raise ValueError(f"the ruler needs labelled images of classes 0..{classes - 1}")
    for name, count in (("steps", steps), ("batch", batch)):
        require.whole(name, count)
    require.seed(seed)
    require.real("lr", lr, 0, open_low=True)
    require.real("smoothing", smoothing, 0, 1, open_high=True)
    draws = torch.Generator().manual_seed(seed)
    where = torch.device(device)
    with torch.random.fork_rng([where] if where.type == "cuda" else []):  # weights and dropout
        torch.manual_seed(seed)
        net = Ruler(images.shape, images.levels, width, features, classes)
        net.to(where).train()
        optimizer = torch.optim.AdamW(net.parameters(), lr, weight_decay=0.05)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for _ in range(steps):
            rows = torch.randint(len(images), (batch,), generator=draws)
            x, y = bent(images.x[rows], images.levels, draws).to(where), images.y[rows].to(where)
            loss = F.cross_entropy(net(x), y, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
    return net.eval()


def bent(x: Tensor, levels: int, draws: torch.Generator, strength: float = 0.1) -> Tensor:
    """Levels [B,C,H,W] under small random affine maps, as levels again; the outside is level 0."""
    jitter = strength * torch.randn(len(x), 2, 3, generator=draws)
    theta = (
        torch.eye(2, 3) + jitter
    )  # [B,2,3]: shear, scale and turn in [:, :, :2], shift in the last column
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)  # [B,H,W,2]
    moved = F.grid_sample(x.float(), grid, align_corners=False)
    return moved.round().clamp(0, levels - 1).to(torch.uint8)
