"""Translators: networks and losses put together, with one `training_step` each."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, fields

import torch
from torch import Tensor, nn

from .losses import adversarial_loss, cycle_loss, generator_loss, gradient_penalty, identity_loss
from .networks import init_weights, make_discriminator, make_generator
from .options import Architecture, Objective


class ImagePool(nn.Module):
    """The last `size` translations, so that a critic also meets older fakes (Shrivastava et al. 2017, section 2.3).

    Called with (N, C, H, W), returns as many images: each, once the pool is full, with probability 1/2 an older one, which the new one
    replaces. size=0 returns what it got. `images` is no part of the weights: a training run saves it beside them.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0), persistent=False)

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


class Translator(nn.Module):
    """A generator for each direction, ready to `translate`; weights are drawn from torch's global generator: seed before you build.

    `averaged` holds a running mean of both generators' weights over the training, which `translate` uses: GANs circle around their goal,
    and the mean lies nearer to it (Yazici et al. 2019, arXiv 1806.04498). Raises ValueError for networks that do not exist.
    """

    def __init__(self, architecture: Architecture = Architecture()):
        super().__init__()
        a = self.architecture = architecture
        name = f"resnet_{a.n_blocks}blocks" if a.generator == "resnet" else a.generator
        like = {"ngf": a.ngf, "norm": a.norm, "dropout": a.dropout, "upsampling": a.upsampling}
        self.G_ct2mri = make_generator(name, a.ct_channels, a.mri_channels, **like)
        self.G_mri2ct = make_generator(name, a.mri_channels, a.ct_channels, **like)
        self.averaged = nn.ModuleDict({"mri": deepcopy(self.G_ct2mri), "ct": deepcopy(self.G_mri2ct)}).requires_grad_(False)

    @property
    def current(self) -> dict[str, nn.Module]:
        """The generators of the last step, by the modality that they make."""
        return {"mri": self.G_ct2mri, "ct": self.G_mri2ct}

    @torch.no_grad()
    def update_averages(self, step: int, memory: float = 0.998) -> None:
        """Move the averaged generators towards the current ones after training step `step`, counted from 1.

        The memory grows from 2/11 to its final value, so that the random first weights are soon forgotten.
        """
        share = 1 - min(memory, (1 + step) / (10 + step))
        for to, network in self.current.items():
            torch._foreach_lerp_(list(self.averaged[to].parameters()), list(network.parameters()), share)
            for mean, statistic in zip(self.averaged[to].buffers(), network.buffers(), strict=True):        # batch norm's
                mean.copy_(statistic)

    @torch.no_grad()
    def translate(self, images: Tensor, to: str, averaged: bool = True, batch_size: int = 32) -> Tensor:
        """Translate (N, C, H, W) in [-1, 1] to "mri" or "ct"; same size and range, on the images' device.

        averaged: use the running mean of the generator's weights, else those of the last step. Works in batches, without gradients, and in
        eval mode: no dropout, and a look at a model in training leaves batch norm's statistics alone. Raises ValueError for another `to`.
        """
        if to not in self.averaged:
            raise ValueError(f'to={to!r} is not a modality here: choose "mri" or "ct"')
        network = self.averaged[to] if averaged else self.current[to]
        device, training = next(network.parameters()).device, network.training
        network.eval()
        try:
            return torch.cat([network(batch.to(device)) for batch in images.split(batch_size)]).to(images.device)
        finally:
            network.train(training)


class CycleGAN(Translator):
    """Two generators, two critics, and the losses that tie them together (Zhu et al. 2017).

    `training_step(ct, mri)` takes unpaired batches (N, C, H, W) in [-1, 1] and returns the generators' loss, the critics' loss (both
    scalars with gradients) and a dict of their parts (detached scalars). Raises ValueError for an identity loss between different numbers
    of channels.
    """

    def __init__(self, architecture: Architecture = Architecture(), objective: Objective = Objective()):
        super().__init__(architecture)
        a, self.objective = architecture, objective
        if objective.identity and a.ct_channels != a.mri_channels:
            raise ValueError(f"identity={objective.identity:g} needs as many CT as MR channels, and there are {a.ct_channels} and "
                             f"{a.mri_channels}: set identity = 0")
        like = {"ndf": a.ndf, "n_layers": a.n_layers, "norm": a.norm, "spectral": a.spectral}
        self.D_ct = make_discriminator(a.discriminator, a.ct_channels, **like)
        self.D_mri = make_discriminator(a.discriminator, a.mri_channels, **like)
        for network in (self.G_ct2mri, self.G_mri2ct, self.D_ct, self.D_mri):
            init_weights(network, a.init, a.init_gain)
        for to, network in self.current.items():
            self.averaged[to].load_state_dict(network.state_dict())
        self.pool_ct, self.pool_mri = ImagePool(objective.pool_size), ImagePool(objective.pool_size)
        # Two batches in one call give the same result only where nothing is shared between images.
        self.batched = a.norm != "batch" and not a.dropout

    @property
    def generators(self) -> list[nn.Parameter]:
        return [*self.G_ct2mri.parameters(), *self.G_mri2ct.parameters()]

    @property
    def critics(self) -> list[nn.Parameter]:
        return [*self.D_ct.parameters(), *self.D_mri.parameters()]

    def forward(self, ct: Tensor, mri: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The training step, by the name under which wrappers such as DistributedDataParallel call it."""
        return self.training_step(ct, mri)

    def training_step(self, ct: Tensor, mri: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weights, with_identity = self.objective, self.objective.identity > 0
        fake_mri, *identity_mri = self.together(self.G_ct2mri, ct, *[mri] * with_identity)
        fake_ct, *identity_ct = self.together(self.G_mri2ct, mri, *[ct] * with_identity)
        cycled_ct, cycled_mri = self.G_mri2ct(fake_mri), self.G_ct2mri(fake_ct)

        with frozen(self.D_ct, self.D_mri):                      # the critics judge, they do not learn here
            adversarial = sum(generator_loss(verdict, weights.gan_mode) for verdict in (self.D_mri(fake_mri), self.D_ct(fake_ct)))
        back_ct, back_mri = cycle_loss(cycled_ct, ct), cycle_loss(cycled_mri, mri)
        generators = adversarial + weights.cycle_ct * back_ct + weights.cycle_mri * back_mri
        parts = {"adversarial": adversarial, "cycle": back_ct + back_mri}
        if with_identity:
            parts["identity"] = identity_loss(identity_ct[0], ct) + identity_loss(identity_mri[0], mri)
            generators = generators + weights.identity * parts["identity"]
        # The reference asks its pools in this order.
        parts["critic mri"] = self.critic_loss(self.D_mri, mri, self.pool_mri(fake_mri))
        parts["critic ct"] = self.critic_loss(self.D_ct, ct, self.pool_ct(fake_ct))
        return generators, parts["critic ct"] + parts["critic mri"], {name: part.detach() for name, part in parts.items()}

    def together(self, network: nn.Module, *batches: Tensor) -> list[Tensor]:
        """The network's answer to each batch, in one call if that gives the same answers."""
        if self.batched and len({batch.shape[1:] for batch in batches}) == 1:
            return list(network(torch.cat(batches)).split([len(batch) for batch in batches]))
        return [network(batch) for batch in batches]

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of calling real images real and fake ones fake; the half slows the critic down, as in the paper.

        With "wgangp" the whole sum and the gradient penalty: the slope that the penalty asks for belongs to the whole sum.
        """
        mode = self.objective.gan_mode
        verdict_real, verdict_fake = self.together(critic, real, fake.detach())
        both = adversarial_loss(verdict_real, True, mode) + adversarial_loss(verdict_fake, False, mode)
        if mode == "wgangp":
            return both + self.objective.gradient_penalty * gradient_penalty(critic, real, fake)
        return 0.5 * both

    def settings(self) -> dict:
        """Everything needed to build this model again: `CycleGAN.from_settings(model.settings())`."""
        return asdict(self.architecture) | asdict(self.objective)

    @classmethod
    def from_settings(cls, settings: dict) -> CycleGAN:
        """The untrained model that `settings()` describes; a checkpoint's identity holds these among others."""
        return cls(*(part(**{spec.name: settings[spec.name] for spec in fields(part)}) for part in (Architecture, Objective)))
