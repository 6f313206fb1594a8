"""Layers of torch in a form that trains faster on the CPU: same names of weights, same sums.

`use_fast_layers` puts them in the place of torch's own in a network that is already built.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def use_fast_layers(model: nn.Module) -> None:
    """Replace layers by the faster ones below, in place; weights and their names stay.

    Values and gradients stay the same up to rounding, which the tests state. Hooks on a replaced
    layer are lost: register them afterwards. A second call changes nothing.

    Args:
        model: any module, such as a `CycleGAN`; its layers get batches, (N, C, H, W).
    """
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            faster = fast_layer(layer)
            if faster is not None:
                setattr(parent, name, faster)


def fast_layer(layer: nn.Module) -> nn.Module | None:
    """The faster form of a layer, with the same parameters, or None if there is none."""
    if type(layer) is nn.InstanceNorm2d and is_plain_norm(layer):
        return InstanceNorm()
    if type(layer) is nn.ReflectionPad2d and is_even_padding(layer):
        return ReflectionPad(layer.padding)

    if type(layer) is nn.Conv2d and ends_a_generator(layer):
        with torch.device("meta"):
            faster = LastConv(layer.in_channels, 1, 7)
        faster.weight = layer.weight
        faster.bias = layer.bias
        return faster
    return None


def is_even_padding(layer: nn.ReflectionPad2d) -> bool:
    """Whether it pads all sides by the same width."""
    return len(set(layer.padding)) == 1 and layer.padding[0] > 0


def is_plain_norm(layer: nn.InstanceNorm2d) -> bool:
    """Whether it has neither weights nor statistics, and torch's default epsilon."""
    has_parameters = layer.affine or layer.track_running_stats
    return not has_parameters and layer.eps == 1e-5


def ends_a_generator(layer: nn.Conv2d) -> bool:
    """Whether it is a 7x7 convolution to one map, of stride 1, with a bias, without padding."""
    to_one_map = layer.kernel_size == (7, 7) and layer.out_channels == 1
    is_plain = layer.stride == layer.dilation == (1, 1) and layer.padding == (0, 0)
    return to_one_map and is_plain and layer.bias is not None


class InstanceNorm(nn.Module):
    """(N, C, H, W) with mean 0 and variance 1 in every map.

    What `nn.InstanceNorm2d` computes, as a `group_norm` with a group for each channel: a quarter
    of its time forward, as much back.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 3:
            return F.instance_norm(x[None])[0]
        return F.group_norm(x, x.shape[1])


class Reflection(torch.autograd.Function):
    """Padding by reflection whose backward pass adds a few lines of the image.

    Torch's own adds pixel by pixel and takes two to three times as long.
    """

    @staticmethod
    def forward(ctx, x: Tensor, width: int) -> Tensor:
        ctx.width = width
        return F.pad(x, [width] * 4, mode="reflect")

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        width = ctx.width

        # The sum is in float32 or wider, because bf16 would lose the small terms.
        total = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True)
        for axis in (-1, -2):
            last = total.shape[axis] - 1
            for k in range(width):
                # Padded line k is a copy of line 2 * width - k, and likewise at the other end.
                total.select(axis, 2 * width - k).add_(total.select(axis, k))
                total.select(axis, last - 2 * width + k).add_(total.select(axis, last - k))

        # The copy is contiguous, in the memory layout of the gradient.
        inside = total[..., width:-width, width:-width]
        return inside.to(gradient.dtype, copy=True), None


class ReflectionPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d` of one width on all sides.

    bf16 stays bf16, which the CPU's autocast would take to float32 and back.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            if x.requires_grad:
                return Reflection.apply(x, self.padding[0])
            return super().forward(x)


class ToOneMap(torch.autograd.Function):
    """A convolution to one map whose backward pass is made of convolutions *from* one map.

    Stride 1, no padding. oneDNN fills up a single output map to sixteen, but reads a single input
    map as it is, so both passes together take half of the time. With `wide`, the incoming gradient
    padded with zeros, and `flipped`, the weight with its sides flipped:

    * the gradient of x is conv(wide, flipped);
    * the gradient of `flipped` is that of sum(x * conv(wide, flipped)).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias)  # (N, 1, H - h + 1, W - w + 1)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Under autocast the gradient comes in bf16.
        x, weight = (saved.to(gradient.dtype) for saved in ctx.saved_tensors)
        flipped = weight.flip(2, 3).transpose(0, 1)  # (C, 1, h, w)
        h, w = flipped.shape[2:]
        wide = F.pad(gradient, [w - 1, w - 1, h - 1, h - 1])  # (N, 1, H + h - 1, W + w - 1)

        x_gradient = F.conv2d(wide, flipped)
        flipped_gradient = nn.grad.conv2d_weight(wide, flipped.shape, x)  # (C, 1, h, w)
        weight_gradient = flipped_gradient.flip(2, 3).reshape(weight.shape)
        return x_gradient, weight_gradient, gradient.sum((0, 2, 3))


class LastConv(nn.Conv2d):
    """The convolution to one map that ends a generator, trained faster on the CPU.

    An `nn.Conv2d` with one output channel, stride 1, a bias and no padding.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.device.type == "cpu":
            return ToOneMap.apply(x, self.weight, self.bias)
        return super().forward(x)
