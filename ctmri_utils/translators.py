"""Translators: networks and losses put together, with one `training_step` each."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from .losses import adversarial_loss, cycle_loss, identity_loss
from .networks import PatchDiscriminator, ResnetGenerator, init_weights


@dataclass(frozen=True)
class LossWeights:
    """Weights of the generators' losses, beside the adversarial one at 1; the paper's values."""

    cycle: float = 10.0
    identity: float = 5.0


class ImagePool(nn.Module):
    """The last `size` translations, so that a critic also meets older fakes (Shrivastava et al. 2017, section 2.3).

    Called with (N, C, H, W), returns as many images: each, once the pool is full, with probability 1/2 an older one, which the new one
    replaces. size=0 returns what it got. Part of the model's state, so a resumed run goes on with the same images.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0))

    def forward(self, fakes: Tensor) -> Tensor:
        if self.size == 0:
            return fakes
        chosen = []
        for fake in fakes.detach():
            if len(self.images) < self.size:
                self.images = fake[None].clone() if len(self.images) == 0 else torch.cat([self.images, fake[None]])
            elif torch.rand(()) < 0.5:
                slot = int(torch.randint(self.size, ()))
                fake, self.images[slot] = self.images[slot].clone(), fake
            chosen.append(fake)
        return torch.stack(chosen)                               # (N, C, H, W)

    def _load_from_state_dict(self, state, prefix, *rest):
        # The pool grows, so its shape comes from the file; its place does not.
        self.images = torch.empty_like(state[prefix + "images"], device=self.images.device)
        super()._load_from_state_dict(state, prefix, *rest)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Inside the block these networks collect no gradients, though gradients flow through them."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@dataclass(frozen=True)
class Architecture:
    """Sizes of a CycleGAN's four networks; kept in every checkpoint, so that a file says how to rebuild its model."""

    ngf: int = 64
    ndf: int = 64
    n_blocks: int = 9
    n_layers: int = 3
    norm: str = "instance"


class CycleGAN(nn.Module):
    """Two generators, two critics, and the losses that tie them together (Zhu et al. 2017).

    `training_step(ct, mri)` takes unpaired batches (N, 1, H, W) in [-1, 1] and returns the generators' loss, the critics' loss (both
    scalars with gradients) and a dict of their parts (detached scalars). `averaged` holds a running mean of both generators' weights,
    which `translate` uses: GANs circle around their goal, and the mean lies nearer to it (Yazici et al. 2019, arXiv 1806.04498).
    Weights are drawn from torch's global generator: seed before you build.
    """

    def __init__(self, architecture: Architecture = Architecture(), weights: LossWeights = LossWeights(), gan_mode: str = "lsgan",
                 pool_size: int = 50):
        super().__init__()
        self.architecture, self.weights, self.gan_mode = architecture, weights, gan_mode
        generator = {"ngf": architecture.ngf, "n_blocks": architecture.n_blocks, "norm": architecture.norm}
        critic = {"ndf": architecture.ndf, "n_layers": architecture.n_layers, "norm": architecture.norm}
        self.G_ct2mri, self.G_mri2ct = ResnetGenerator(**generator), ResnetGenerator(**generator)
        self.D_ct, self.D_mri = PatchDiscriminator(**critic), PatchDiscriminator(**critic)
        init_weights(self)
        self.averaged = nn.ModuleDict({"mri": deepcopy(self.G_ct2mri), "ct": deepcopy(self.G_mri2ct)}).requires_grad_(False)
        self.pool_ct, self.pool_mri = ImagePool(pool_size), ImagePool(pool_size)

    @property
    def generators(self) -> list[nn.Parameter]:
        return [*self.G_ct2mri.parameters(), *self.G_mri2ct.parameters()]

    @property
    def critics(self) -> list[nn.Parameter]:
        return [*self.D_ct.parameters(), *self.D_mri.parameters()]

    def training_step(self, ct: Tensor, mri: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        n = len(ct)
        # One call per generator for the translation and the identity: instance norm treats every image alone, so this is exact.
        fake_mri, identity_mri = self.G_ct2mri(torch.cat([ct, mri])).split([n, len(mri)])
        fake_ct, identity_ct = self.G_mri2ct(torch.cat([mri, ct])).split([len(mri), n])
        cycled_ct, cycled_mri = self.G_mri2ct(fake_mri), self.G_ct2mri(fake_ct)

        with frozen(self.D_ct, self.D_mri):                      # the critics judge, they do not learn here
            adversarial = sum(adversarial_loss(verdict, True, self.gan_mode) for verdict in (self.D_mri(fake_mri), self.D_ct(fake_ct)))
        cycle = cycle_loss(cycled_ct, ct) + cycle_loss(cycled_mri, mri)
        identity = identity_loss(identity_ct, ct) + identity_loss(identity_mri, mri)

        generators = adversarial + self.weights.cycle * cycle + self.weights.identity * identity
        critic_ct = self.critic_loss(self.D_ct, ct, self.pool_ct(fake_ct))
        critic_mri = self.critic_loss(self.D_mri, mri, self.pool_mri(fake_mri))
        parts = {"adversarial": adversarial, "cycle": cycle, "identity": identity, "critic ct": critic_ct, "critic mri": critic_mri}
        return generators, critic_ct + critic_mri, {name: part.detach() for name, part in parts.items()}

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of calling real images real and fake ones fake; the half slows the critic down, as in the paper."""
        verdict_real, verdict_fake = critic(torch.cat([real, fake.detach()])).split([len(real), len(fake)])
        return 0.5 * (adversarial_loss(verdict_real, True, self.gan_mode) + adversarial_loss(verdict_fake, False, self.gan_mode))

    @torch.no_grad()
    def update_averages(self, step: int, memory: float = 0.998) -> None:
        """Move the averaged generators towards the current ones after training step `step`, counted from 1.

        The memory grows from 2/11 to its final value, so that the random first weights are soon forgotten.
        """
        share = 1 - min(memory, (1 + step) / (10 + step))
        for average, network in ((self.averaged["mri"], self.G_ct2mri), (self.averaged["ct"], self.G_mri2ct)):
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(weight, share)
            for mean, statistic in zip(average.buffers(), network.buffers(), strict=True):      # batch norm's
                mean.copy_(statistic)

    @torch.no_grad()
    def translate(self, images: Tensor, to: str, averaged: bool = True, batch_size: int = 32) -> Tensor:
        """Translate (N, 1, H, W) in [-1, 1] to "mri" or "ct"; same shape and range, on the images' device.

        averaged: use the running mean of the generator's weights, else those of the last step. Works in batches, without gradients.
        Raises ValueError for another `to`.
        """
        if to not in self.averaged:
            raise ValueError(f'to={to!r} is not a modality here: choose "mri" or "ct"')
        network = self.averaged[to] if averaged else {"mri": self.G_ct2mri, "ct": self.G_mri2ct}[to]
        device = next(network.parameters()).device
        return torch.cat([network(batch.to(device)) for batch in images.split(batch_size)]).to(images.device)

    def settings(self) -> dict:
        """Everything needed to build this model again: `CycleGAN.from_settings(model.settings())`."""
        return {"architecture": asdict(self.architecture), "weights": asdict(self.weights), "gan_mode": self.gan_mode,
                "pool_size": self.pool_ct.size}

    @classmethod
    def from_settings(cls, settings: dict) -> CycleGAN:
        """The untrained model that `settings()` describes."""
        return cls(Architecture(**settings["architecture"]), LossWeights(**settings["weights"]), settings["gan_mode"],
                   settings["pool_size"])
