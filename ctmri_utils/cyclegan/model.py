"""Translators: networks and losses put together, with one `training_step` each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..masks import mri_head_mask
from ..settings import Architecture, Objective
from ..units import CT_MAPS, HU
from . import losses
from .losses import adversarial_loss, cycle_loss, generator_loss, gradient_penalty, identity_loss
from .networks import ResnetBlock, ResnetGenerator, init_weights, make_discriminator, make_generator

STRUCTURE = {
    "gradient": losses.gradient_loss,
    "mind": losses.mind_loss,
    "correlation": losses.correlation_loss,
}
# per image and layer, as in Park et al. 2020
PATCHES, PATCH_FEATURES = 256, 256


class ImagePool(nn.Module):
    """The last `size` translations, so that a critic also meets older fakes (Shrivastava et al.

    2017, section 2.3).

    Called with (N, C, H, W), returns as many images: each, once the pool is full, with probability
    1/2 an older one, which the new one replaces. size=0 returns what it got. `images` is no part of
    the weights: a training run saves it beside them.
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
                self.images = (
                    fake[None].clone()
                    if len(self.images) == 0
                    else torch.cat([self.images, fake[None]])
                )
            elif torch.rand(()) < 0.5:
                slot = int(torch.randint(self.size, ()))
                fake, self.images[slot] = self.images[slot].clone(), fake
            chosen.append(fake)
        return torch.stack(chosen)  # (N, C, H, W)


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
    """A generator for each direction, ready to `translate`.

    Weights are drawn from torch's global generator: seed before you build.

    `averaged` holds a running mean of both generators' weights over the training, which `translate`
    uses: GANs circle around their goal, and the mean lies nearer to it (Yazici et al. 2019, arXiv
    1806.04498). Raises ValueError for networks that do not exist.
    """

    def __init__(self, architecture: Architecture = Architecture()):
        super().__init__()
        a = self.architecture = architecture
        self.ct_map = CT_MAPS[a.ct_map]
        ct_channels = a.ct_channels * self.ct_map.channels
        name = f"resnet_{a.n_blocks}blocks" if a.generator == "resnet" else a.generator
        like = {"ngf": a.ngf, "norm": a.norm, "dropout": a.dropout, "upsampling": a.upsampling}
        self.G_ct2mri = make_generator(name, ct_channels, a.mri_channels, **like)
        self.G_mri2ct = make_generator(name, a.mri_channels, ct_channels, **like)
        self.averaged = nn.ModuleDict(
            {"mri": deepcopy(self.G_ct2mri), "ct": deepcopy(self.G_mri2ct)}
        ).requires_grad_(False)

    @property
    def current(self) -> dict[str, nn.Module]:
        """The generators of the last step, by the modality that they make."""
        return {"mri": self.G_ct2mri, "ct": self.G_mri2ct}

    @torch.no_grad()
    def update_averages(self, step: int, memory: float = 0.998) -> None:
        """Move the averaged generators towards the current ones after training step `step`, counted
        from 1.

        The memory grows from 2/11 to its final value, so that the random first weights are soon
        forgotten.
        """
        share = 1 - min(memory, (1 + step) / (10 + step))
        for to, network in self.current.items():
            torch._foreach_lerp_(
                list(self.averaged[to].parameters()), list(network.parameters()), share
            )
            # batch norm's
            for mean, statistic in zip(self.averaged[to].buffers(), network.buffers(), strict=True):
                mean.copy_(statistic)

    @torch.no_grad()
    def translate(
        self, images: Tensor, to: str, averaged: bool = True, batch_size: int = 32
    ) -> Tensor:
        """Translate (N, C, H, W) in [-1, 1] to "mri" or "ct".

        Same size and range, on the images' device.

        averaged: use the running mean of the generator's weights, else those of the last step.
        Works in batches, without gradients, and in eval mode: no dropout, and a look at a model in
        training leaves batch norm's statistics alone. Raises ValueError for another `to`.
        """
        if to not in self.averaged:
            raise ValueError(f'to={to!r} is not a modality here: choose "mri" or "ct"')
        network = self.averaged[to] if averaged else self.current[to]
        device, training = next(network.parameters()).device, network.training
        before, after = (
            (self.ct_map.encode, lambda mri: mri)
            if to == "mri"
            else (lambda mri: mri, self.ct_map.decode)
        )
        network.eval()
        try:
            return torch.cat(
                [after(network(before(batch.to(device)))) for batch in images.split(batch_size)]
            ).to(images.device)
        finally:
            network.train(training)


class PatchContrast(nn.Module):
    """`patch_nce_loss` on what a ResNet generator's first half sees.

    Does a patch of the translation still show its own original?

    Five layers, as in CUT (Park et al. 2020): the padded image, both halvings, the first and the
    middle residual block. Each has a small network of its own that turns a place's features into a
    direction; the same places are drawn from both images, by torch's global generator. Raises
    ValueError for a generator without residual blocks.
    """

    def __init__(self, generator: nn.Module):
        super().__init__()
        blocks = [
            i
            for i, layer in enumerate(generator.model.children())
            if isinstance(layer, ResnetBlock)
        ]
        if not blocks:
            raise ValueError(
                'nce needs the residual blocks of a ResNet generator: set generator = "resnet" '
                "with n_blocks of 1 or more, "
                "or nce = 0"
            )
        halvings = [
            i
            for i, layer in enumerate(generator.model)
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        ]
        self.layers = sorted({0, *halvings, blocks[0], blocks[len(blocks) // 2]})
        first, widest = generator.model[1], generator.model[halvings[-1]].out_channels
        widths = [
            first.in_channels,
            *[generator.model[i].out_channels for i in halvings],
            widest,
            widest,
        ][: len(self.layers)]
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, PATCH_FEATURES),
                nn.ReLU(),
                nn.Linear(PATCH_FEATURES, PATCH_FEATURES),
            )
            for width in widths
        )

    def forward(self, generator: ResnetGenerator, translation: Tensor, original: Tensor) -> Tensor:
        """The mean loss over the layers; both images (N, C, H, W), C what the generator takes."""
        # the original's features are what is aimed at
        with torch.no_grad():
            targets = self.seen(generator, original)
        total = 0
        for head, ours, theirs in zip(
            self.heads, self.seen(generator, translation), targets, strict=True
        ):
            ours, theirs = ours.flatten(2), theirs.flatten(2)  # (N, width, places)
            places = torch.randperm(ours.shape[-1])[:PATCHES].to(ours.device)
            queries, keys = (
                F.normalize(head(seen[..., places].transpose(1, 2)), dim=-1)
                for seen in (ours, theirs)
            )
            total = total + losses.patch_nce_loss(queries, keys)
        return total / len(self.heads)

    def seen(self, generator: ResnetGenerator, images: Tensor) -> list[Tensor]:
        found = []
        for i, layer in enumerate(generator.model[: self.layers[-1] + 1]):
            images = layer(images)
            if i in self.layers:
                # the next layer may be a ReLU, which works in place
                found.append(images.clone())
        return found


class CycleGAN(Translator):
    """Two generators, two critics, and the losses that tie them together (Zhu et al.

    2017), with the remedies that others proposed.

    What is asked for is the `objective`; a weight of 0 leaves a loss out, and its cost. So the same
    class is CUT (`nce` and `nce_identity` alone), pix2pix without its conditional critic
    (`supervised`, on pairs), or plain regression (`supervised` with adversarial = 0).
    `training_step(ct, mri)` takes batches (N, C, H, W) in [-1, 1] and returns the generators' loss,
    the critics' loss (both scalars with gradients) and a dict of their parts (detached scalars).
    Raises ValueError for an identity or contrast loss between different numbers of channels.
    """

    def __init__(
        self, architecture: Architecture = Architecture(), objective: Objective = Objective()
    ):
        super().__init__(architecture)
        a, self.objective = architecture, objective
        ct_channels = a.ct_channels * self.ct_map.channels
        for name in ("identity", "nce", "nce_identity"):
            if getattr(objective, name) and ct_channels != a.mri_channels:
                raise ValueError(
                    f"{name}={getattr(objective, name):g} needs as many CT as MR channels, and "
                    f"there are {ct_channels} and {a.mri_channels}: set {name} = 0"
                )
        if objective.mask and a.ct_channels > 1:
            raise ValueError(
                f"mask={objective.mask:g} needs one CT channel, and there are {a.ct_channels}: set "
                "mask = 0"
            )
        like = {"ndf": a.ndf, "n_layers": a.n_layers, "norm": a.norm, "spectral": a.spectral}
        self.D_ct = make_discriminator(a.discriminator, ct_channels, **like)
        self.D_mri = make_discriminator(a.discriminator, a.mri_channels, **like)
        for network in (self.G_ct2mri, self.G_mri2ct, self.D_ct, self.D_mri):
            init_weights(network, a.init, a.init_gain)
        for to, network in self.current.items():
            self.averaged[to].load_state_dict(network.state_dict())
        # after the others, whose first weights then are those of a plain CycleGAN
        if objective.nce or objective.nce_identity:
            contrasts = {to: PatchContrast(network) for to, network in self.current.items()}
            self.contrast = init_weights(nn.ModuleDict(contrasts), a.init, a.init_gain)
        # else several processes would wait for their gradients
        if not objective.adversarial:
            for critic in (self.D_ct, self.D_mri):
                critic.requires_grad_(False)
        self.pool_ct, self.pool_mri = ImagePool(objective.pool_size), ImagePool(objective.pool_size)
        # Two batches in one call give the same result only where nothing is shared between images.
        self.batched = a.norm != "batch" and not a.dropout

    @property
    def generators(self) -> list[nn.Parameter]:
        contrast = self.contrast.parameters() if hasattr(self, "contrast") else ()
        return [*self.G_ct2mri.parameters(), *self.G_mri2ct.parameters(), *contrast]

    @property
    def critics(self) -> list[nn.Parameter]:
        return [*self.D_ct.parameters(), *self.D_mri.parameters()]

    def forward(self, ct: Tensor, mri: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The training step, by the name under which wrappers such as DistributedDataParallel call
        it.
        """
        return self.training_step(ct, mri)

    def training_step(self, ct: Tensor, mri: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        weights, ct, parts = self.objective, self.ct_map.encode(ct), {}
        with_identity = weights.identity > 0 or weights.nce_identity > 0
        fake_mri, *identity_mri = self.together(self.G_ct2mri, ct, *[mri] * with_identity)
        fake_ct, *identity_ct = self.together(self.G_mri2ct, mri, *[ct] * with_identity)
        generators = critics = ct.new_zeros(())

        if weights.adversarial:
            # the critics judge, they do not learn here
            with frozen(self.D_ct, self.D_mri):
                verdicts = self.D_mri(fake_mri), self.D_ct(fake_ct)
            parts["adversarial"] = sum(
                generator_loss(verdict, weights.gan_mode) for verdict in verdicts
            )
            generators = weights.adversarial * parts["adversarial"]
        if weights.cycle_ct or weights.cycle_mri:
            back_ct = cycle_loss(self.G_mri2ct(self.noisy(fake_mri)), ct)
            back_mri = cycle_loss(self.G_ct2mri(self.noisy(fake_ct)), mri)
            parts["cycle"] = back_ct + back_mri
            generators = generators + weights.cycle_ct * back_ct + weights.cycle_mri * back_mri
        if weights.identity:
            parts["identity"] = identity_loss(identity_ct[0], ct) + identity_loss(
                identity_mri[0], mri
            )
        for name, loss in STRUCTURE.items():
            if getattr(weights, name):
                parts[name] = loss(fake_mri, ct) + loss(fake_ct, mri)
        if weights.mask:
            parts["mask"] = losses.mask_loss(
                HU.from_network(self.ct_map.decode(fake_ct)), head_in(mri)
            )
        if weights.nce:
            parts["nce"] = self.contrast["mri"](self.G_ct2mri, fake_mri, ct) + self.contrast["ct"](
                self.G_mri2ct, fake_ct, mri
            )
        if weights.nce_identity:
            parts["nce_identity"] = self.contrast["mri"](
                self.G_ct2mri, identity_mri[0], mri
            ) + self.contrast["ct"](self.G_mri2ct, identity_ct[0], ct)
        if weights.supervised:
            parts["supervised"] = cycle_loss(fake_mri, mri) + cycle_loss(fake_ct, ct)
        for name in ("identity", *STRUCTURE, "mask", "nce", "nce_identity", "supervised"):
            if name in parts:
                generators = generators + getattr(weights, name) * parts[name]

        # the reference asks its pools in this order
        if weights.adversarial:
            parts["critic mri"] = self.critic_loss(self.D_mri, mri, self.pool_mri(fake_mri))
            parts["critic ct"] = self.critic_loss(self.D_ct, ct, self.pool_ct(fake_ct))
            critics = parts["critic ct"] + parts["critic mri"]
        return generators, critics, {name: part.detach() for name, part in parts.items()}

    def noisy(self, fake: Tensor) -> Tensor:
        """The translation as the way back gets it.

        Noise drowns what is hidden in it (Bashkirova et al. 2019).
        """
        sigma = self.objective.translation_noise
        return fake + sigma * torch.randn_like(fake) if sigma else fake

    def together(self, network: nn.Module, *batches: Tensor) -> list[Tensor]:
        """The network's answer to each batch, in one call if that gives the same answers."""
        if self.batched and len({batch.shape[1:] for batch in batches}) == 1:
            return list(network(torch.cat(batches)).split([len(batch) for batch in batches]))
        return [network(batch) for batch in batches]

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the sum of calling real images real and fake ones fake.

        The half slows the critic down, as in the paper.

        With "wgangp" the whole sum and the gradient penalty: the slope that the penalty asks for
        belongs to the whole sum.
        """
        mode = self.objective.gan_mode
        verdict_real, verdict_fake = self.together(critic, real, fake.detach())
        both = adversarial_loss(verdict_real, True, mode) + adversarial_loss(
            verdict_fake, False, mode
        )
        if mode == "wgangp":
            return both + self.objective.gradient_penalty * gradient_penalty(critic, real, fake)
        return 0.5 * both

    def settings(self) -> dict:
        """All that builds this model again: `CycleGAN.from_settings(model.settings())`."""
        return asdict(self.architecture) | asdict(self.objective)

    @classmethod
    def from_settings(cls, settings: dict) -> CycleGAN:
        """The untrained model that `settings()` describes.

        A checkpoint's identity holds these among others.
        """
        # else: the default
        return cls(
            *(
                part(
                    **{
                        spec.name: settings[spec.name]
                        for spec in fields(part)
                        if spec.name in settings
                    }
                )
                for part in (Architecture, Objective)
            )
        )


def head_in(mri: Tensor) -> Tensor:
    """The head's mask in each MR slice: (N, C, H, W) in [-1, 1] -> bool (N, 1, H, W).

    Raises ValueError if all slices are blank.
    """
    images = mri.mean(1, keepdim=True).detach().float().cpu().numpy()
    return torch.from_numpy(mri_head_mask(images)).to(mri.device)
