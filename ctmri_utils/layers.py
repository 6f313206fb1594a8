"""Layers of torch in a form that trains faster on the CPU: the same names of weights, the same results up to rounding."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.Module):
    """(N, C, H, W) with mean 0 and variance 1 in every map; no parameters, no running statistics: the same in train and eval mode.

    What `nn.InstanceNorm2d` computes, by way of `group_norm` with a group for each channel, which takes a quarter of its time.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1])                       # (N, C, H, W)


class Reflection(torch.autograd.Function):
    """Padding by reflection whose backward pass adds a few lines: torch's own, pixel by pixel, takes five times as long."""

    @staticmethod
    def forward(ctx, x: Tensor, width: int) -> Tensor:
        ctx.width = width
        return F.pad(x, [width] * 4, mode="reflect")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        width, total = ctx.width, gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)      # no sums in bf16
        for axis in (-1, -2):
            last = total.shape[axis] - 1
            for k in range(width):                               # line k mirrors line 2 width - k
                total.select(axis, 2 * width - k).add_(total.select(axis, k))
                total.select(axis, last - 2 * width + k).add_(total.select(axis, last - k))
        return total[..., width:-width, width:-width].to(gradient.dtype).contiguous(), None


class ReflectionPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d` of one width on all sides; it also keeps bf16, which autocast would take to float32 and back."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return Reflection.apply(x, self.padding[0]) if x.requires_grad else super().forward(x)


class ToOneMap(torch.autograd.Function):
    """A convolution to one map, of stride 1 and without padding, whose backward pass is made of convolutions *from* one map.

    oneDNN fills up one map to sixteen, in all three passes, but reads a single one as it is. So the padded gradient g, (N, 1, ...), takes
    the place of the input: its convolution with the flipped kernel is the gradient of x, and the slope of that one in its kernel, with x
    as the gradient, is the flipped gradient of the kernel. The same sums, and a third of the time.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias)                         # (N, 1, H - h + 1, W - w + 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)                 # bf16 under autocast
        kernel = weight.flip(2, 3).transpose(0, 1)               # (C, 1, h, w)
        h, w = kernel.shape[2:]
        wide = F.pad(gradient, [w - 1, w - 1, h - 1, h - 1])     # (N, 1, H + h - 1, W + w - 1)
        slope = nn.grad.conv2d_weight(wide, kernel.shape, x)     # (C, 1, h, w)
        return F.conv2d(wide, kernel), slope.flip(2, 3).transpose(0, 1), gradient.sum((0, 2, 3))


class LastConv(nn.Conv2d):
    """`nn.Conv2d` of stride 1 without padding, as at the end of a generator: faster backward if it makes one map."""

    def forward(self, x: Tensor) -> Tensor:
        if self.out_channels == 1 and x.requires_grad and x.device.type == "cpu":
            return ToOneMap.apply(x, self.weight, self.bias)
        return super().forward(x)
