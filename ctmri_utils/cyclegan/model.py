"""Networks and losses put together: a translator, and the CycleGAN that trains one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..settings import Architecture, Objective
from ..units import CT_MAPS
from .architectures import make_discriminator, make_generator
from .losses import adversarial_loss, cycle_loss, fooling_loss, gradient_penalty, identity_loss
from .networks import init_weights
from .remedies import LOSSES, check_losses, extra_networks


class ImagePool(nn.Module):
    """A buffer of `size` translations, so that a discriminator also meets older ones.

    `images` is no part of the weights: a training run saves it beside them.

    Source: Shrivastava et al. 2017, section 2.3; the size of 50 is that of Zhu et al. 2017.
    """

    def __init__(self, size: int = 50):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.empty(0), persistent=False)

    def forward(self, fakes: Tensor) -> Tensor:
        """Images to judge, as many as `fakes`, (N, C, H, W).

        Once the pool is full, each is with probability 1/2 an older one, which the new one
        replaces. With size 0 the images come back as they are.
        """
        if self.size == 0:
            return fakes

        chosen = []
        for fake in fakes.detach():
            if len(self.images) == 0:
                self.images = fake[None].clone()
            elif len(self.images) < self.size:
                self.images = torch.cat([self.images, fake[None]])
            elif torch.rand(()) < 0.5:
                slot = int(torch.randint(self.size, ()))
                older = self.images[slot].clone()
                self.images[slot] = fake
                fake = older
            chosen.append(fake)
        return torch.stack(chosen)


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """Inside the block these networks collect no gradients, though gradients flow through them."""
    weights = [weight for network in networks for weight in network.parameters()]
    learning = [weight for weight in weights if weight.requires_grad]
    for weight in learning:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in learning:
            weight.requires_grad_(True)


class Translator(nn.Module):
    """A generator for each direction, ready to `translate`.

    Weights are drawn from torch's global generator: seed before you build. `averaged` holds a
    running mean of both generators' weights over the training, which `translate` uses: GANs circle
    around their goal, and the mean lies nearer to it (Yazici et al. 2019, arXiv 1806.04498).
    `contract` may hold a `runs.contract.Contract`: which slices the networks know.

    Args:
        architecture: which networks.

    Raises:
        ValueError: networks that do not exist.
    """

    def __init__(self, architecture: Architecture = Architecture()):
        super().__init__()
        self.architecture = architecture
        self.ct_map = CT_MAPS[architecture.ct_map]
        self.contract = None

        name = architecture.generator
        if name == "resnet":
            name = f"resnet_{architecture.n_blocks}blocks"
        options = {
            "ngf": architecture.ngf,
            "norm": architecture.norm,
            "dropout": architecture.dropout,
            "upsampling": architecture.upsampling,
        }
        self.G_ct2mri = make_generator(
            name, self.mapped_ct_channels, architecture.mri_channels, **options
        )
        self.G_mri2ct = make_generator(
            name, architecture.mri_channels, self.mapped_ct_channels, **options
        )
        averaged = {"mri": deepcopy(self.G_ct2mri), "ct": deepcopy(self.G_mri2ct)}
        self.averaged = nn.ModuleDict(averaged).requires_grad_(False)

    @property
    def mapped_ct_channels(self) -> int:
        """Channels of a CT slice as the networks see it."""
        return self.architecture.ct_channels * self.ct_map.channels

    @property
    def current(self) -> dict[str, nn.Module]:
        """The generators of the last step, by the modality that they make."""
        return {"mri": self.G_ct2mri, "ct": self.G_mri2ct}

    @torch.no_grad()
    def update_averages(self, step: int, memory: float = 0.998) -> None:
        """Move the averaged generators towards the current ones after training step `step`, from 1.

        The memory grows from 2/11 to its final value, so that the random first weights are soon
        forgotten.
        """
        update = get_ema_multi_avg_fn(min(memory, (1 + step) / (10 + step)))
        for to, network in self.current.items():
            average = self.averaged[to]
            update(list(average.parameters()), list(network.parameters()), step)

            # Batch norm's statistics are means already.
            for copied, statistic in zip(average.buffers(), network.buffers(), strict=True):
                copied.copy_(statistic)

    @torch.no_grad()
    def translate(
        self, images: Tensor, to: str, averaged: bool = True, batch_size: int = 32
    ) -> Tensor:
        """Translate slices without gradients and in eval mode, in batches.

        A look at a model in training leaves batch norm's statistics alone.

        Args:
            images: (N, C, H, W) in [-1, 1], on any device.
            to: "mri" or "ct".
            averaged: use the running mean of the generator's weights, else those of the last step.
            batch_size: slices at once.

        Returns:
            (N, C', H, W) in [-1, 1], on the images' device.

        Raises:
            ValueError: another `to`.
        """
        if to not in self.averaged:
            known = " or ".join(self.averaged)
            raise ValueError(f"to={to!r} is not a modality here: choose {known}")

        network = self.averaged[to] if averaged else self.current[to]
        device, training = next(network.parameters()).device, network.training
        network.eval()
        try:
            translated = []
            for batch in images.split(batch_size):
                batch = batch.to(device)
                if to == "mri":
                    translated.append(network(self.ct_map.encode(batch)))
                else:
                    translated.append(self.ct_map.decode(network(batch)))
            return torch.cat(translated).to(images.device)
        finally:
            network.train(training)


@dataclass(frozen=True, eq=False)
class Images:
    """All images of one step, (N, C, H, W), CT as `ct_map` encodes it; None where not needed."""

    ct: Tensor
    mri: Tensor
    fake_mri: Tensor
    fake_ct: Tensor
    cycled_ct: Tensor | None
    cycled_mri: Tensor | None
    identity_ct: Tensor | None
    identity_mri: Tensor | None


class Step(NamedTuple):
    """The two sums to minimise, with gradients, and the losses in them, detached and unweighted."""

    generator_loss: Tensor
    discriminator_loss: Tensor
    losses: dict[str, Tensor]


class CycleGAN(Translator):
    """Two generators, two discriminators, and the losses that tie them together.

    The `objective` says what is minimised; a weight of 0 leaves a loss out, and its cost. So the
    same class is CUT (`nce` and `nce_identity` beside the adversarial loss), pix2pix without its
    conditional discriminator (`supervised`, on pairs), or regression (`supervised` with
    adversarial = 0).

    Args:
        architecture: which networks.
        objective: the weights of the losses.

    Raises:
        ValueError: networks that do not exist, or losses that these networks cannot have.

    Source: Zhu et al. 2017 (arXiv 1703.10593).

    Example:
        >>> from ctmri_utils import CycleGAN, settings_for
        >>> settings = settings_for("ci")
        >>> model = CycleGAN(settings.architecture, settings.objective)
    """

    def __init__(
        self, architecture: Architecture = Architecture(), objective: Objective = Objective()
    ):
        super().__init__(architecture)
        self.objective = objective
        check_losses(self)

        options = {
            "ndf": architecture.ndf,
            "n_layers": architecture.n_layers,
            "norm": architecture.norm,
            "spectral": architecture.spectral,
        }
        name = architecture.discriminator
        self.D_ct = make_discriminator(name, self.mapped_ct_channels, **options)
        self.D_mri = make_discriminator(name, architecture.mri_channels, **options)

        for network in (self.G_ct2mri, self.G_mri2ct, self.D_ct, self.D_mri):
            init_weights(network, architecture.init, architecture.init_gain)
        for to, network in self.current.items():
            self.averaged[to].load_state_dict(network.state_dict())

        # They are drawn last, so that the other networks begin as in a plain CycleGAN.
        self.contrast = extra_networks(self)

        # Several processes would wait for the gradients of discriminators that never train.
        if not objective.adversarial:
            self.D_ct.requires_grad_(False)
            self.D_mri.requires_grad_(False)

        self.pool_ct = ImagePool(objective.pool_size)
        self.pool_mri = ImagePool(objective.pool_size)

        # Batch norm and dropout let images of one call depend on each other.
        self.images_are_independent = architecture.norm != "batch" and not architecture.dropout

    @property
    def generator_parameters(self) -> list[nn.Parameter]:
        """What the generators' optimizer trains."""
        networks = (self.G_ct2mri, self.G_mri2ct, self.contrast)
        return [weight for network in networks for weight in network.parameters()]

    @property
    def discriminator_parameters(self) -> list[nn.Parameter]:
        """What the discriminators' optimizer trains."""
        return [*self.D_ct.parameters(), *self.D_mri.parameters()]

    def forward(self, ct: Tensor, mri: Tensor) -> Step:
        """The training step, by the name under which DistributedDataParallel calls it."""
        return self.training_step(ct, mri)

    def training_step(self, ct: Tensor, mri: Tensor) -> Step:
        """The losses of one step on unpaired batches (N, C, H, W) in [-1, 1]."""
        images = self.generate(ct, mri)
        generator_loss, generator_losses = self.generator_loss(images)
        discriminator_loss, discriminator_losses = self.discriminator_loss(images)

        losses = generator_losses | discriminator_losses
        detached = {name: loss.detach() for name, loss in losses.items()}
        return Step(generator_loss, discriminator_loss, detached)

    def generate(self, ct: Tensor, mri: Tensor) -> Images:
        """Translate a batch of each modality, and back, and what should stay as it is."""
        objective = self.objective
        ct = self.ct_map.encode(ct)

        identity_ct = identity_mri = None
        if objective.identity or objective.nce_identity:
            fake_mri, identity_mri = self.call_on_both(self.G_ct2mri, ct, mri)
            fake_ct, identity_ct = self.call_on_both(self.G_mri2ct, mri, ct)
        else:
            fake_mri, fake_ct = self.G_ct2mri(ct), self.G_mri2ct(mri)

        cycled_ct = cycled_mri = None
        if objective.cycle_ct or objective.cycle_mri:
            cycled_ct = self.G_mri2ct(self.add_noise(fake_mri))
            cycled_mri = self.G_ct2mri(self.add_noise(fake_ct))

        return Images(
            ct=ct,
            mri=mri,
            fake_mri=fake_mri,
            fake_ct=fake_ct,
            cycled_ct=cycled_ct,
            cycled_mri=cycled_mri,
            identity_ct=identity_ct,
            identity_mri=identity_mri,
        )

    def generator_loss(self, images: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """What the generators minimise: the weighted sum, and its losses without their weights."""
        objective = self.objective
        losses = {}
        total = 0

        if objective.adversarial:
            # The discriminators judge; they do not learn here.
            with frozen(self.D_ct, self.D_mri):
                fool_mri = fooling_loss(self.D_mri(images.fake_mri), objective.gan_mode)
                fool_ct = fooling_loss(self.D_ct(images.fake_ct), objective.gan_mode)
            losses["adversarial"] = fool_mri + fool_ct
            total = total + objective.adversarial * losses["adversarial"]

        if objective.cycle_ct or objective.cycle_mri:
            cycle_ct = cycle_loss(images.cycled_ct, images.ct)
            cycle_mri = cycle_loss(images.cycled_mri, images.mri)
            losses["cycle"] = cycle_ct + cycle_mri
            total = total + objective.cycle_ct * cycle_ct + objective.cycle_mri * cycle_mri

        if objective.identity:
            identity_ct = identity_loss(images.identity_ct, images.ct)
            identity_mri = identity_loss(images.identity_mri, images.mri)
            losses["identity"] = identity_ct + identity_mri
            total = total + objective.identity * losses["identity"]

        # Lesson 07's remedies come in here; the plain CycleGAN adds none.
        for name, loss in LOSSES.items():
            weight = getattr(objective, name)
            if weight:
                losses[name] = loss(self, images)
                total = total + weight * losses[name]

        return total, losses

    def discriminator_loss(self, images: Images) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminators minimise: the sum of both, and each one's loss."""
        if not self.objective.adversarial:
            return images.ct.new_zeros(()), {}

        # MR comes first as in the reference, because the random draws of the pools depend on it.
        mri_loss = self.real_or_fake(self.D_mri, images.mri, self.pool_mri(images.fake_mri))
        ct_loss = self.real_or_fake(self.D_ct, images.ct, self.pool_ct(images.fake_ct))
        return ct_loss + mri_loss, {"discriminator_mri": mri_loss, "discriminator_ct": ct_loss}

    def real_or_fake(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of a discriminator's losses on real and on fake images.

        The half slows the discriminator down, as in the paper. With "wgangp" it is the whole sum
        and the gradient penalty, because the slope that the penalty asks for belongs to that.
        """
        mode = self.objective.gan_mode
        on_real, on_fake = self.call_on_both(discriminator, real, fake.detach())
        loss = adversarial_loss(on_real, True, mode) + adversarial_loss(on_fake, False, mode)
        if mode == "wgangp":
            penalty = gradient_penalty(discriminator, real, fake)
            return loss + self.objective.gradient_penalty * penalty
        return 0.5 * loss

    def add_noise(self, fake: Tensor) -> Tensor:
        """The translation with noise, to drown what is hidden in it (Bashkirova et al. 2019)."""
        sigma = self.objective.translation_noise
        return fake + sigma * torch.randn_like(fake) if sigma else fake

    def call_on_both(
        self, network: nn.Module, first: Tensor, second: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The network's outputs for two batches, in one call if that gives the same outputs."""
        if self.images_are_independent and first.shape[1:] == second.shape[1:]:
            outputs = network(torch.cat([first, second]))
            return outputs.split([len(first), len(second)])
        return network(first), network(second)

    def settings(self) -> dict:
        """All that builds this model again: `CycleGAN.from_settings(model.settings())`."""
        return asdict(self.architecture) | asdict(self.objective)

    @classmethod
    def from_settings(cls, settings: dict) -> CycleGAN:
        """The untrained model that `settings()` describes.

        A run's fingerprint holds these among others; what an older one lacks has its default.
        """
        parts = []
        for part in (Architecture, Objective):
            names = {spec.name for spec in fields(part)} & settings.keys()
            parts.append(part(**{name: settings[name] for name in names}))
        return cls(*parts)
