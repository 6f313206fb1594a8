"""Checks of assignment 3: losses, the pool and the training step."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from .checking import check, refuses


@check("A3.1", "a fooled discriminator costs the generator nothing", "which verdict does it want?")
def fooled(generator_loss, discriminator_loss):
    return generator_loss(torch.ones(1, 1, 2, 2)).item() == 0


@check("A3.1", "label smoothing moves the target of real slices", "real_label is for one term only")
def smoothing(generator_loss, discriminator_loss):
    real, fake = torch.full((1, 1, 2, 2), 0.9), torch.zeros(1, 1, 2, 2)
    return discriminator_loss(real, fake, real_label=0.9).item() < 1e-9


@check("A3.1", "the discriminator's loss is half of the sum", "read the last words of the task")
def half_of_sum(generator_loss, discriminator_loss):
    wrong = discriminator_loss(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    return abs(wrong.item() - 1) < 1e-6


@check("A3.2", "air does not dilute the loss", "the mean over how many pixels?")
def air_does_not_dilute(masked_cycle_loss):
    head = torch.tensor([[[[True, False, False, False]]]])
    return abs(masked_cycle_loss(torch.ones(1, 1, 1, 4), torch.zeros(1, 1, 1, 4), head) - 1) < 1e-6


@check("A3.2", "other shapes are refused", "PyTorch silently broadcasts a dimension of 1")
def refuses_shapes(masked_cycle_loss):
    pair, single = torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    return refuses(masked_cycle_loss, pair, single, pair == 0)


@check("A3.3", "a full pool shows old images, too", "what is a pool for?")
def shows_old(pool):
    torch.manual_seed(0)
    images, image_pool = torch.arange(60.0).reshape(60, 1, 1, 1), pool(2)
    shown = [image_pool(images[i : i + 1]).item() for i in range(60)]
    return any(value != i for i, value in enumerate(shown)) and shown[:2] == [0, 1]


@check("A3.3", "an image that was replaced is gone", "the old one leaves the pool as it is shown")
def shows_once(pool):
    torch.manual_seed(0)
    images, image_pool = torch.arange(60.0).reshape(60, 1, 1, 1), pool(3)
    shown = [image_pool(images[i : i + 1]).item() for i in range(3, 60)][3:]
    return len(shown) == len(set(shown))


@check("A3.3", "the pool keeps copies", "the caller may overwrite a tensor later")
def keeps_copies(pool):
    torch.manual_seed(0)
    image, image_pool = torch.zeros(1, 1, 1, 1), pool(1)
    image_pool(image)
    image.fill_(7.0)
    shown = [image_pool(torch.full((1, 1, 1, 1), 3.0)).item() for _ in range(20)]
    return 7.0 not in shown


class Times(nn.Module):
    """A network with one weight."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, x):
        return self.weight * x


def networks() -> SimpleNamespace:
    return SimpleNamespace(
        G_ct2mri=Times(1.5), G_mri2ct=Times(0.5), D_ct=Times(0.7), D_mri=Times(0.3)
    )


def losses(step_losses, nets, cycle_weight=0.0, identity_weight=0.0):
    ct, mri = torch.full((1, 1, 2, 2), 0.4), torch.full((1, 1, 2, 2), -0.2)
    return step_losses(nets, ct, mri, cycle_weight, identity_weight)


@check("A3.4", "the discriminators get no gradient from the generators' loss", "who learns when?")
def discriminators_rest(step_losses):
    nets = networks()
    losses(step_losses, nets)[0].backward()
    return nets.D_ct.weight.grad is None and nets.D_mri.weight.grad is None


@check("A3.4", "the generators get none from the discriminators' loss", "what does detach do?")
def generators_rest(step_losses):
    nets = networks()
    losses(step_losses, nets)[1].backward()
    return nets.G_ct2mri.weight.grad is None and nets.G_mri2ct.weight.grad is None


@check("A3.4", "every network is ready to learn afterwards", "undo what you switched off")
def ready(step_losses):
    nets = networks()
    losses(step_losses, nets)
    return all(network.weight.requires_grad for network in vars(nets).values())


@check("A3.4", "both weights have an effect", "how many terms does the generators' loss?")
def weights_count(step_losses):
    plain, cycle, identity = (
        losses(step_losses, networks(), *weights)[0].item() for weights in ((0, 0), (1, 0), (0, 1))
    )
    return cycle > plain and identity > plain


@check("A3.5", "the first half is constant", "from which step does it fall?")
def first_half(learning_rate):
    return learning_rate(0, 100, 0.5) == learning_rate(50, 100, 0.5) == 0.5


@check("A3.5", "it never reaches zero", "zero would come at step `steps`, which is never taken")
def never_zero(learning_rate):
    return 0 < learning_rate(99, 100, 0.5) < learning_rate(98, 100, 0.5)


@check("A3.6", "the average itself is changed", "rebinding a name changes nothing")
def in_place(update_average):
    average, network = nn.Linear(1, 1), nn.Linear(1, 1)
    before = average.weight.data_ptr(), average.weight.item()
    update_average(average, network, 0.5)
    return average.weight.data_ptr() == before[0] and average.weight.item() != before[1]


@check("A3.6", "statistics of batch norm are copied", "buffers are not parameters")
def copies_buffers(update_average):
    average, network = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    network.running_mean.fill_(8.0)
    update_average(average, network, 0.5)
    return average.running_mean.tolist() == [8.0, 8.0]


@check("A3.6", "the network stays untouched", "which of the two is written to?")
def network_stays(update_average):
    average, network = nn.Linear(1, 1), nn.Linear(1, 1)
    before = network.weight.item()
    update_average(average, network, 0.5)
    return network.weight.item() == before
