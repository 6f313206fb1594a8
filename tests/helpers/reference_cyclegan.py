"""The published algorithm once more, written out from the papers and the reference's order of
calls; nothing is imported from the package.

Zhu et al. 2017 (arXiv 1703.10593) as junyanz/pytorch-CycleGAN-and-pix2pix runs it: six passes
through the generators and six through the discriminators a step, in that order, generators before
discriminators. Its names are kept: A is CT, B is MR, G_A makes B from A, and D_A judges B. The
engine is held to `train` step by step, and `benchmarks/training.py` times `ReferenceStep`.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


def convolution(weights: Weights, key: str, x: Tensor, **options) -> Tensor:
    return F.conv2d(x, weights[f"{key}.weight"], weights[f"{key}.bias"], **options)


def doubling(weights: Weights, key: str, x: Tensor) -> Tensor:
    return F.conv_transpose2d(
        x, weights[f"{key}.weight"], weights[f"{key}.bias"], stride=2, padding=1, output_padding=1
    )


def reflected(x: Tensor, pixels: int) -> Tensor:
    return F.pad(x, (pixels,) * 4, mode="reflect")


def norm(x: Tensor) -> Tensor:
    """Instance norm: each map of each image on its own."""
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (variance + 1e-5).sqrt()


def resnet_generator(weights: Weights, x: Tensor) -> Tensor:
    """c7s1-k, d2k, d4k, R4k ..., u2k, uk, c7s1.

    The paper's appendix, with as many blocks as there are weights for.
    """
    blocks = len({key.split(".")[1] for key in weights if "conv_block" in key})
    x = norm(convolution(weights, "model.1", reflected(x, 3))).relu()
    for key in ("model.4", "model.7"):
        x = norm(convolution(weights, key, x, stride=2, padding=1)).relu()
    for block in range(10, 10 + blocks):
        inner = norm(convolution(weights, f"model.{block}.conv_block.1", reflected(x, 1))).relu()
        x = x + norm(convolution(weights, f"model.{block}.conv_block.5", reflected(inner, 1)))
    for layer in (10, 13):
        x = norm(doubling(weights, f"model.{layer + blocks}", x)).relu()
    return convolution(weights, f"model.{17 + blocks}", reflected(x, 3)).tanh()


def patch_discriminator(weights: Weights, x: Tensor) -> Tensor:
    """C64-C128-C256-C512 and a verdict.

    4x4 convolutions, stride 2 but for the last two, no norm at either end.
    """
    layers = sorted(int(key.split(".")[1]) for key in weights if key.endswith("weight"))
    last = len(layers) - 1
    for n, layer in enumerate(layers):
        stride = 2 if n < last - 1 else 1
        x = convolution(weights, f"model.{layer}", x, stride=stride, padding=1)
        if 0 < n < last:
            x = norm(x)
        if n < last:
            x = F.leaky_relu(x, 0.2)
    return x


class Network:
    """Weights of our own, float64, and what they compute."""

    def __init__(self, forward: Callable[[Weights, Tensor], Tensor], state: Weights):
        self.forward = forward
        self.weights = {
            key: value.detach().double().clone().requires_grad_() for key, value in state.items()
        }

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(self.weights, x)

    def parameters(self) -> list[Tensor]:
        return list(self.weights.values())


class Pool:
    """The last `size` fakes.

    A full pool hands out an older one half of the time and keeps the new one in its place.

    Draws from torch's global source: a coin for each image, then, if it falls below 1/2, an index.
    """

    def __init__(self, size: int):
        self.size = size
        self.images = []

    def query(self, fakes: Tensor) -> Tensor:
        if self.size == 0:
            return fakes
        handed_out = []
        for fake in fakes.detach().split(1):
            if len(self.images) < self.size:
                self.images.append(fake.clone())
                handed_out.append(fake)
            elif torch.rand(()) < 0.5:
                index = int(torch.randint(self.size, ()))
                handed_out.append(self.images[index])
                self.images[index] = fake.clone()
            else:
                handed_out.append(fake)
        return torch.cat(handed_out)


def lsgan(verdict: Tensor, real: bool) -> Tensor:
    return F.mse_loss(verdict, torch.full_like(verdict, float(real)))


class ReferenceStep:
    """Four networks (modules, or `Network`s), two Adams, two pools, and one training step."""

    def __init__(
        self, G_A, G_B, D_A, D_B, *, pool_size=50, lambda_A=10.0, lambda_B=10.0, lambda_identity=0.5
    ):
        self.G_A, self.G_B, self.D_A, self.D_B = G_A, G_B, D_A, D_B
        self.lambda_A, self.lambda_B, self.lambda_identity = lambda_A, lambda_B, lambda_identity
        self.pool_A, self.pool_B = Pool(pool_size), Pool(pool_size)
        generators = itertools.chain(G_A.parameters(), G_B.parameters())
        discriminators = itertools.chain(D_A.parameters(), D_B.parameters())
        self.adam_G = torch.optim.Adam(generators, 2e-4, (0.5, 0.999))
        self.adam_D = torch.optim.Adam(discriminators, 2e-4, (0.5, 0.999))

    def __call__(self, real_A: Tensor, real_B: Tensor, rate: float = 2e-4) -> dict[str, Tensor]:
        for group in self.adam_G.param_groups + self.adam_D.param_groups:
            group["lr"] = rate
        fake_B = self.G_A(real_A)
        rec_A = self.G_B(fake_B)
        fake_A = self.G_B(real_B)
        rec_B = self.G_A(fake_A)

        self.discriminators_learn(False)
        self.adam_G.zero_grad()
        losses = {
            "idt_A": F.l1_loss(self.G_A(real_B), real_B) * self.lambda_B * self.lambda_identity,
            "idt_B": F.l1_loss(self.G_B(real_A), real_A) * self.lambda_A * self.lambda_identity,
            "G_A": lsgan(self.D_A(fake_B), True),
            "G_B": lsgan(self.D_B(fake_A), True),
            "cycle_A": F.l1_loss(rec_A, real_A) * self.lambda_A,
            "cycle_B": F.l1_loss(rec_B, real_B) * self.lambda_B,
        }
        sum(losses.values()).backward()
        self.adam_G.step()

        self.discriminators_learn(True)
        self.adam_D.zero_grad()
        losses["D_A"] = self.discriminate(self.D_A, real_B, self.pool_B.query(fake_B))
        losses["D_B"] = self.discriminate(self.D_B, real_A, self.pool_A.query(fake_A))
        self.adam_D.step()
        return {name: loss.detach() for name, loss in losses.items()}

    def discriminators_learn(self, learn: bool) -> None:
        for parameter in itertools.chain(self.D_A.parameters(), self.D_B.parameters()):
            parameter.requires_grad_(learn)

    @staticmethod
    def discriminate(discriminator, real: Tensor, fake: Tensor) -> Tensor:
        verdict_real = discriminator(real)
        verdict_fake = discriminator(fake.detach())
        loss = (lsgan(verdict_real, True) + lsgan(verdict_fake, False)) * 0.5
        loss.backward()
        return loss


def linear_rate(epoch: int, n_epochs: int = 100, n_epochs_decay: int = 100) -> float:
    """The factor of epoch 1, 2, ....

    1 for n_epochs, then on a line towards 0, which it would reach one epoch after the end.

    The paper's schedule. The reference's code has stepped its scheduler before each epoch since
    2019, so its last one trains at 0.
    """
    return 1 - max(0, epoch - n_epochs) / (n_epochs_decay + 1)


def train(
    states: dict[str, Weights],
    batches_A: list[Tensor],
    batches_B: list[Tensor],
    *,
    rate: Callable[[int], float] = lambda step: 2e-4,
    **options,
) -> list[dict[str, float]]:
    """One step for each pair of batches, in float64, and each step's eight losses, weighted as the
    reference prints them.

    states: the first weights of G_A, G_B, D_A and D_B. rate: the learning rate of step 0, 1, ...
    options: those of `ReferenceStep`.
    """
    forwards = {"G": resnet_generator, "D": patch_discriminator}
    networks = {name: Network(forwards[name[0]], state) for name, state in states.items()}
    step = ReferenceStep(**networks, **options)
    history = []
    for n, (real_A, real_B) in enumerate(zip(batches_A, batches_B, strict=True)):
        losses = step(real_A.double(), real_B.double(), rate(n))
        history.append({name: float(loss) for name, loss in losses.items()})
    return history
