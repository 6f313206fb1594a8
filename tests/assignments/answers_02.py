"""Assignment 2: what a student would really write, wrong and right."""

NAME = "02_networks_receptive_fields"

WRONG = {
    "discriminator_parameters": {
        "the width grows without end": """
def discriminator_parameters(in_channels, ndf, n_layers):
    widths = [in_channels] + [ndf * 2**n for n in range(n_layers + 1)] + [1]
    return sum((16 * a + 1) * b for a, b in zip(widths, widths[1:]))""",
        "no biases": """
def discriminator_parameters(in_channels, ndf, n_layers):
    widths = [in_channels] + [ndf * min(2**n, 8) for n in range(n_layers + 1)] + [1]
    return sum(16 * a * b for a, b in zip(widths, widths[1:]))""",
        "kernel 3": """
def discriminator_parameters(in_channels, ndf, n_layers):
    widths = [in_channels] + [ndf * min(2**n, 8) for n in range(n_layers + 1)] + [1]
    return sum((9 * a + 1) * b for a, b in zip(widths, widths[1:]))""",
        "without the last layer": """
def discriminator_parameters(in_channels, ndf, n_layers):
    widths = [in_channels] + [ndf * min(2**n, 8) for n in range(n_layers + 1)]
    return sum((16 * a + 1) * b for a, b in zip(widths, widths[1:]))""",
        "right for the published sizes only": """
def discriminator_parameters(in_channels, ndf, n_layers):
    widths = [in_channels, 64, 128, 256, 512, 1]
    return sum((16 * a + 1) * b for a, b in zip(widths, widths[1:]))""",
        "counts a built network": """
def discriminator_parameters(in_channels, ndf, n_layers):
    return networks.count_parameters(networks.PatchDiscriminator(in_channels, ndf, n_layers))""",
    },
    "field_on_paper": {
        "dilation ignored": """
def field_on_paper(layers):
    field, step = 1, 1
    for kernel, stride, _ in layers:
        field, step = field + (kernel - 1) * step, step * stride
    return field""",
        "stride ignored": """
def field_on_paper(layers):
    return 1 + sum((kernel - 1) * dilation for kernel, _, dilation in layers)""",
        "a layer's stride counts for itself": """
def field_on_paper(layers):
    field, step = 1, 1
    for kernel, stride, dilation in layers:
        step *= stride
        field += (kernel - 1) * dilation * step
    return field""",
        "kernel times dilation": """
def field_on_paper(layers):
    field, step = 1, 1
    for kernel, stride, dilation in layers:
        field, step = field + (kernel * dilation - 1) * step, step * stride
    return field""",
    },
    "measured_field": {
        "all outputs at once": """
def measured_field(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    network(image).sum().backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    return (rows.max() - rows.min() + 1).item(), (columns.max() - columns.min() + 1).item()""",
        "the output in the corner": """
def measured_field(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    network(image)[0, 0, 0, 0].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    return (rows.max() - rows.min() + 1).item(), (columns.max() - columns.min() + 1).item()""",
        "pixels counted": """
def measured_field(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    seen = image.grad[0, 0] != 0
    return seen.any(1).sum().item(), seen.any(0).sum().item()""",
        "width and height swapped": """
def measured_field(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    return (columns.max() - columns.min() + 1).item(), (rows.max() - rows.min() + 1).item()""",
        "one short": """
def measured_field(network, size):
    image = torch.rand(1, 1, size, size, requires_grad=True)
    output = network(image)
    output[0, 0, output.shape[2] // 2, output.shape[3] // 2].backward()
    rows, columns = image.grad[0, 0].nonzero().unbind(1)
    return (rows.max() - rows.min()).item(), (columns.max() - columns.min()).item()""",
    },
    "instance_norm": {
        "batch norm": """
def instance_norm(x, eps=1e-5):
    return (x - x.mean((0, 2, 3), keepdim=True)) / (
        x.var((0, 2, 3), unbiased=False, keepdim=True) + eps
    ).sqrt()""",
        "layer norm": """
def instance_norm(x, eps=1e-5):
    return (x - x.mean((1, 2, 3), keepdim=True)) / (
        x.var((1, 2, 3), unbiased=False, keepdim=True) + eps
    ).sqrt()""",
        "divided by n - 1": """
def instance_norm(x, eps=1e-5):
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True) + eps).sqrt()""",
        "eps outside of the root": """
def instance_norm(x, eps=1e-5):
    spread = x.std((2, 3), unbiased=False, keepdim=True)
    return (x - x.mean((2, 3), keepdim=True)) / (spread + eps)""",
        "no eps": """
def instance_norm(x, eps=1e-5):
    return (x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), unbiased=False, keepdim=True)""",
        "divided by the variance": """
def instance_norm(x, eps=1e-5):
    spread = x.var((2, 3), unbiased=False, keepdim=True)
    return (x - x.mean((2, 3), keepdim=True)) / (spread + eps)""",
    },
    "dilated_block": {
        "nothing is added": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = lambda: (
            nn.ReflectionPad2d(dilation),
            nn.Conv2d(channels, channels, 3, dilation=dilation),
            nn.InstanceNorm2d(channels),
        )
        self.change = nn.Sequential(*one(), nn.ReLU(), *one())

    def forward(self, x):
        return self.change(x)""",
        "zeros at the edge": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = lambda: (
            nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation),
            nn.InstanceNorm2d(channels),
        )
        self.change = nn.Sequential(*one(), nn.ReLU(), *one())

    def forward(self, x):
        return x + self.change(x)""",
        "a ReLU after the addition": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = lambda: (
            nn.ReflectionPad2d(dilation),
            nn.Conv2d(channels, channels, 3, dilation=dilation),
            nn.InstanceNorm2d(channels),
        )
        self.change = nn.Sequential(*one(), nn.ReLU(), *one())

    def forward(self, x):
        return (x + self.change(x)).relu()""",
        "no dilation": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = lambda: (
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )
        self.change = nn.Sequential(*one(), nn.ReLU(), *one())

    def forward(self, x):
        return x + self.change(x)""",
        "no norm at the end": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = lambda: (
            nn.ReflectionPad2d(dilation),
            nn.Conv2d(channels, channels, 3, dilation=dilation),
        )
        self.change = nn.Sequential(*one(), nn.InstanceNorm2d(channels), nn.ReLU(), *one())

    def forward(self, x):
        return x + self.change(x)""",
        "one convolution used twice": """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        one = (
            nn.ReflectionPad2d(dilation),
            nn.Conv2d(channels, channels, 3, dilation=dilation),
            nn.InstanceNorm2d(channels),
        )
        self.change = nn.Sequential(*one, nn.ReLU(), *one)

    def forward(self, x):
        return x + self.change(x)""",
    },
    "enlarge": {
        "transposed, kernel 3": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.up = nn.ConvTranspose2d(
            channels, channels // 2, 3, stride=2, padding=1, output_padding=1
        )

    def forward(self, x):
        return self.up(x)""",
        "transposed, kernel 4": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1)

    def forward(self, x):
        return self.up(x)""",
        "zeros at the edge": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.up = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels // 2, 3, padding=1)
        )

    def forward(self, x):
        return self.up(x)""",
        "shuffled pixels": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.up = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(channels, 2 * channels, 3), nn.PixelShuffle(2)
        )

    def forward(self, x):
        return self.up(x)""",
        "nothing to learn": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x):
        return nn.functional.interpolate(x[:, : self.channels // 2], scale_factor=2)""",
        "always the same": """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.mix = nn.Linear(channels, channels // 2)

    def forward(self, x):
        mean = self.mix(x.mean((2, 3)))[:, :, None, None]
        return mean.expand(-1, -1, 2 * x.shape[2], 2 * x.shape[3])""",
    },
}

RIGHT = {
    "discriminator_parameters": [
        """
def discriminator_parameters(in_channels, ndf, n_layers):
    total, width = (4 * 4 * in_channels + 1) * ndf, ndf
    for _ in range(n_layers):
        wider = min(width * 2, ndf * 8)
        total += (4 * 4 * width + 1) * wider
        width = wider
    return total + 4 * 4 * width + 1""",
        """
def discriminator_parameters(in_channels, ndf, n_layers):
    with torch.device("meta"):
        discriminator = networks.PatchDiscriminator(in_channels, ndf, n_layers)
    return sum(parameter.numel() for parameter in discriminator.parameters())""",
    ],
    "field_on_paper": [
        """
def field_on_paper(layers):
    field = 1
    for kernel, stride, dilation in reversed(layers):
        field = (field - 1) * stride + (kernel - 1) * dilation + 1
    return field""",
        """
from math import prod


def field_on_paper(layers):
    return 1 + sum(
        (k - 1) * d * prod(s for _, s, _ in layers[:i]) for i, (k, _, d) in enumerate(layers)
    )""",
    ],
    "measured_field": [
        """
def measured_field(network, size):
    with torch.no_grad():
        image = torch.randn(1, 1, size, size)
        output = network(image)
        h, w = output.shape[2] // 2, output.shape[3] // 2
        changed = image + torch.eye(size * size).reshape(-1, 1, size, size)
        seen = (network(changed)[:, 0, h, w] - output[0, 0, h, w]).abs().reshape(
            size, size
        ) > 1e-6
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return (
        rows.max().item() - rows.min().item() + 1,
        columns.max().item() - columns.min().item() + 1,
    )""",
        """
def measured_field(network, size):
    def middle(image):
        output = network(image)
        return output[0, 0, output.shape[2] // 2, output.shape[3] // 2]

    jacobian = (
        torch.autograd.functional.jacobian(middle, torch.rand(1, 1, size, size))[0, 0].abs()
        > 0
    )
    spans = [torch.where(jacobian.any(axis))[0] for axis in (1, 0)]
    return tuple(int(span[-1] - span[0] + 1) for span in spans)""",
    ],
    "instance_norm": [
        """
def instance_norm(x, eps=1e-5):
    flat = x.flatten(2)
    variance, mean = torch.var_mean(flat, dim=2, correction=0, keepdim=True)
    return ((flat - mean) * torch.rsqrt(variance + eps)).view_as(x)""",
        """
def instance_norm(x, eps=1e-5):
    out = torch.empty_like(x)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            centred = x[n, c] - x[n, c].sum() / x[n, c].numel()
            out[n, c] = centred / ((centred**2).sum() / centred.numel() + eps) ** 0.5
    return out""",
    ],
    "dilated_block": [
        """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        options = {
            "kernel_size": 3,
            "padding": dilation,
            "dilation": dilation,
            "padding_mode": "reflect",
        }
        self.first, self.second = (
            nn.Conv2d(channels, channels, **options),
            nn.Conv2d(channels, channels, **options),
        )

    def forward(self, x):
        y = nn.functional.instance_norm(self.first(x)).relu()
        return nn.functional.instance_norm(self.second(y)) + x""",
        """
class DilatedBlock(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        self.d = dilation
        self.conv1 = nn.Conv2d(channels, channels, 3, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, dilation=dilation)
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x):
        change = x
        for conv, activation in (
            (self.conv1, nn.functional.relu),
            (self.conv2, nn.Identity()),
        ):
            change = activation(
                self.norm(conv(nn.functional.pad(change, (self.d,) * 4, mode="reflect")))
            )
        return x + change""",
    ],
    "enlarge": [
        """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convolve = nn.Conv2d(channels, channels // 2, 3, padding=1, padding_mode="replicate")

    def forward(self, x):
        return self.convolve(nn.functional.interpolate(x, scale_factor=2, mode="nearest"))""",
        """
class Enlarge(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.up, self.mix = (
            nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Conv2d(channels, channels // 2, 1),
        )

    def forward(self, x):
        return self.up(self.mix(x))""",
    ],
}
