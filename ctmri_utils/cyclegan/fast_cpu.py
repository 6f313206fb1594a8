"""Layers of torch in a form that trains faster on the CPU.

The same names of weights, and the same sums in another order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class InstanceNorm(nn.Module):
    """(N, C, H, W) with mean 0 and variance 1 in every map; no parameters, no running statistics.

    The same in train and eval mode.

    What `nn.InstanceNorm2d` computes, by way of `group_norm` with a group for each channel: a
    quarter of its time forward, as much back.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1])  # (N, C, H, W)


class Reflection(torch.autograd.Function):
    """Padding by reflection whose backward pass adds a few lines.

    Torch's own, pixel by pixel, takes two to three times as long.
    """

    @staticmethod
    def forward(ctx, x: Tensor, width: int) -> Tensor:
        ctx.width = width
        return F.pad(x, [width] * 4, mode="reflect")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        # no sums in bf16
        width, total = (
            ctx.width,
            gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True),
        )
        for axis in (-1, -2):
            last = total.shape[axis] - 1
            # line k mirrors line 2 width - k
            for k in range(width):
                total.select(axis, 2 * width - k).add_(total.select(axis, k))
                total.select(axis, last - 2 * width + k).add_(total.select(axis, last - k))
        # dense, in the layout that came
        return total[..., width:-width, width:-width].to(gradient.dtype, copy=True), None


class ReflectionPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d` of one width on all sides.

    Bf16 stays bf16, which the CPU's autocast would take to float32 and back.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return Reflection.apply(x, self.padding[0]) if x.requires_grad else super().forward(x)


class ToOneMap(torch.autograd.Function):
    """A convolution to one map, of stride 1 and without padding, whose backward pass is made of
    convolutions *from* one map.

    oneDNN fills up a single output map to sixteen, in all three passes, but reads a single input
    map as it is. With `wide`, the incoming gradient between zeros, and k, the weight with its sides
    flipped, the gradient of x is conv(wide, k), and that of k is the gradient of the sum of x *
    conv(wide, k). The same sums; both passes together take half of the time or less.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias)  # (N, 1, H - h + 1, W - w + 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # bf16 under autocast
        x, weight = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)
        k = weight.flip(2, 3).transpose(0, 1)  # (C, 1, h, w)
        h, w = k.shape[2:]
        wide = F.pad(gradient, [w - 1, w - 1, h - 1, h - 1])  # (N, 1, H + h - 1, W + w - 1)
        of_k = nn.grad.conv2d_weight(wide, k.shape, x)  # (C, 1, h, w)
        return F.conv2d(wide, k), of_k.flip(2, 3).reshape(weight.shape), gradient.sum((0, 2, 3))


class LastConv(nn.Conv2d):
    """The convolution that ends a generator.

    `nn.Conv2d` of stride 1 without padding, trained faster if it makes one map on the CPU.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        super().__init__(in_channels, out_channels, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        if self.out_channels == 1 and x.requires_grad and x.device.type == "cpu":
            return ToOneMap.apply(x, self.weight, self.bias)
        return super().forward(x)
