"""Assignment 3: what a student would really write, wrong and right."""

NAME = "03_losses_pool_training_step"

POOL = """
class Pool:
    def __init__(self, size):
        self.size, self.images = size, []

    def __call__(self, fakes):
        shown = []
        for fake in {coming}:
            if len(self.images) < self.size:
                self.images.append(fake)
            elif self.size and {coin}:
                {swap}
            shown.append(fake)
        return torch.stack(shown)
"""
FAIR = {
    "coming": "fakes.detach().clone()",
    "coin": "torch.rand(1) < 0.5",
    "swap": "i = random.randrange(self.size); fake, self.images[i] = self.images[i], fake",
}

STEP = """
def step_losses(nets, ct, mri, cycle_weight, identity_weight):
    fake_mri, fake_ct = nets.G_ct2mri(ct), nets.G_mri2ct(mri)
    for discriminator in (nets.D_ct, nets.D_mri):
        discriminator.requires_grad_({frozen})
    loss = generator_loss({adversarial_mri}) + generator_loss(nets.D_ct(fake_ct))
    for discriminator in (nets.D_ct, nets.D_mri):
        discriminator.requires_grad_({thawed})
    loss = loss + cycle_weight * ({cycle})
    loss = loss + identity_weight * ({identity})
    discriminators = discriminator_loss({real_ct}, nets.D_ct({shown_ct})) + discriminator_loss(
        nets.D_mri(mri), nets.D_mri(fake_mri.detach())
    )
    return loss, discriminators
"""
L1 = "({} - {}).abs().mean()".format
GOOD = {
    "frozen": "False",
    "thawed": "True",
    "adversarial_mri": "nets.D_mri(fake_mri)",
    "cycle": L1("nets.G_mri2ct(fake_mri)", "ct") + " + " + L1("nets.G_ct2mri(fake_ct)", "mri"),
    "identity": L1("nets.G_mri2ct(ct)", "ct") + " + " + L1("nets.G_ct2mri(mri)", "mri"),
    "real_ct": "nets.D_ct(ct)",
    "shown_ct": "fake_ct.detach()",
}


def pool(**changes):
    return POOL.format(**FAIR | changes)


def step(**changes):
    return STEP.format(**GOOD | changes)


def losses(generator, discriminator):
    return (
        f"def generator_loss(verdict_fake):\n    return {generator}\n\n"
        "def discriminator_loss(verdict_real, verdict_fake, real_label=1.0):\n"
        f"    return {discriminator}"
    )


ADVERSARIAL = "((verdict_fake - 1) ** 2).mean()"
REAL, FAKE = "((verdict_real - real_label) ** 2).mean()", "(verdict_fake ** 2).mean()"

WRONG = {
    "adversarial": {
        "the generator wants to be caught": losses(
            "(verdict_fake ** 2).mean()", f"({REAL} + {FAKE}) / 2"
        ),
        "the discriminator's targets are swapped": losses(
            ADVERSARIAL, f"((verdict_real ** 2).mean() + {ADVERSARIAL}) / 2"
        ),
        "no half": losses(ADVERSARIAL, f"{REAL} + {FAKE}"),
        "a sum over the patches": losses(
            "((verdict_fake - 1) ** 2).sum()", f"({REAL} + {FAKE}) / 2"
        ),
        "the label is forgotten": losses(
            ADVERSARIAL, f"(((verdict_real - 1) ** 2).mean() + {FAKE}) / 2"
        ),
        "the label is used for the fakes": losses(
            ADVERSARIAL, f"({REAL} + ((verdict_fake - 1 + real_label) ** 2).mean()) / 2"
        ),
        "square of the mean": losses("(verdict_fake.mean() - 1) ** 2", f"({REAL} + {FAKE}) / 2"),
    },
    "masked_cycle_loss": {
        "squared": """
def masked_cycle_loss(cycled, original, head):
    if not cycled.shape == original.shape == head.shape:
        raise ValueError
    return ((cycled - original) ** 2)[head].mean()""",
        "air counts": """
def masked_cycle_loss(cycled, original, head):
    if not cycled.shape == original.shape == head.shape:
        raise ValueError
    return (cycled - original).abs().mean()""",
        "divided by all pixels": """
def masked_cycle_loss(cycled, original, head):
    if not cycled.shape == original.shape == head.shape:
        raise ValueError
    return ((cycled - original).abs() * head).mean()""",
        "signs cancel": """
def masked_cycle_loss(cycled, original, head):
    if not cycled.shape == original.shape == head.shape:
        raise ValueError
    return (cycled - original)[head].mean().abs()""",
        "shapes are stretched to fit": """
def masked_cycle_loss(cycled, original, head):
    return ((cycled - original).abs() * head).sum() / head.sum()""",
        "no gradient": """
def masked_cycle_loss(cycled, original, head):
    if not cycled.shape == original.shape == head.shape:
        raise ValueError
    return torch.tensor(
        abs(cycled.detach().numpy() - original.numpy())[head.numpy()].mean()
    ).requires_grad_()""",
    },
    "pool": {
        "keeps the gradient history": pool(coming="fakes.clone()"),
        "keeps no copies": pool(coming="fakes.detach()"),
        "the old one is shown, never replaced": pool(swap="fake = random.choice(self.images)"),
        "the new one is stored and shown": pool(
            swap="self.images[random.randrange(self.size)] = fake"
        ),
        "always the first place": pool(swap="fake, self.images[0] = self.images[0], fake"),
        "first in, first out": pool(swap="self.images.append(fake); fake = self.images.pop(0)"),
        "always an old one": pool(coin="True"),
        "one in ten": pool(coin="torch.rand(1) < 0.1"),
        "grows for ever": pool(swap="self.images.append(fake); fake = random.choice(self.images)"),
    },
    "step_losses": {
        "the discriminators' loss reaches a generator": step(shown_ct="fake_ct"),
        "the discriminators learn from the generators' loss": step(frozen="True"),
        "the discriminators stay frozen": step(thawed="False"),
        "the generators cannot learn from the discriminators": step(
            adversarial_mri="nets.D_mri(fake_mri.detach())"
        ),
        "the wrong discriminator": step(adversarial_mri="nets.D_ct(fake_mri)"),
        "one cycle only": step(cycle=L1("nets.G_mri2ct(fake_mri)", "ct")),
        "the identity of the wrong generator": step(
            identity=L1("nets.G_ct2mri(ct)", "ct") + " + " + L1("nets.G_mri2ct(mri)", "mri")
        ),
        "half a cycle": step(cycle=L1("fake_mri", "mri") + " + " + L1("fake_ct", "ct")),
        "real and fake swapped": step(real_ct="nets.D_ct(fake_ct.detach())", shown_ct="ct"),
    },
    "learning_rate": {
        "falls from the start": "def learning_rate(step, steps, base):\n    return base * (1 - "
        "step / steps)",
        "halves": "def learning_rate(step, steps, base):\n    return base if step < steps / 2 else "
        "base / 2",
        "falls to a half": "def learning_rate(step, steps, base):\n    return base * min(1, 1.5 - "
        "step / steps)",
        "zero at the last step": """
def learning_rate(step, steps, base):
    half = steps // 2
    return base if step < half else base * (1 - (step - half) / (steps - 1 - half))""",
        "whole numbers": "def learning_rate(step, steps, base):\n    return base * min(1, 2 * "
        "(steps - step) // steps)",
        "the middle rounded down": """
def learning_rate(step, steps, base):
    half = steps // 2
    return base if step < half else base * (steps - step) / (steps - half)""",
    },
    "update_average": {
        "the shares are swapped": """
def update_average(average, network, memory):
    with torch.no_grad():
        for a, p in zip(average.parameters(), network.parameters()):
            a.copy_((1 - memory) * a + memory * p)
        for a, b in zip(average.buffers(), network.buffers()):
            a.copy_(b)""",
        "no buffers": """
@torch.no_grad()
def update_average(average, network, memory):
    for a, p in zip(average.parameters(), network.parameters()):
        a.mul_(memory).add_(p, alpha=1 - memory)""",
        "names are bound anew, nothing changes": """
@torch.no_grad()
def update_average(average, network, memory):
    for a, p in zip(average.parameters(), network.parameters()):
        a = memory * a + (1 - memory) * p
    for a, b in zip(average.buffers(), network.buffers()):
        a = b""",
        "the network is changed": """
@torch.no_grad()
def update_average(average, network, memory):
    for a, p in zip(average.parameters(), network.parameters()):
        a.copy_(p.mul_(1 - memory).add_(a, alpha=memory))
    for a, b in zip(average.buffers(), network.buffers()):
        a.copy_(b)""",
        "a plain copy": """
def update_average(average, network, memory):
    average.load_state_dict(network.state_dict())""",
        "with a gradient history": """
def update_average(average, network, memory):
    for a, p in zip(average.parameters(), network.parameters()):
        a.mul_(memory).add_((1 - memory) * p)
    for a, b in zip(average.buffers(), network.buffers()):
        a.copy_(b)""",
    },
}

RIGHT = {
    "adversarial": [
        losses(
            "torch.nn.functional.mse_loss(verdict_fake, torch.ones_like(verdict_fake))",
            "(torch.mean((verdict_real - real_label).square()) + "
            "torch.mean(verdict_fake.square())).div(2)",
        ),
        "from ctmri_utils.cyclegan.losses import adversarial_loss\n"
        + losses(
            "adversarial_loss(verdict_fake, True)",
            "0.5 * (adversarial_loss(verdict_real - real_label + 1, True) + "
            "adversarial_loss(verdict_fake, False))",
        ),
    ],
    "masked_cycle_loss": [
        """
import torch.nn.functional as F

def masked_cycle_loss(cycled, original, head):
    if cycled.shape != original.shape or head.shape != cycled.shape:
        raise ValueError("shapes differ")
    return F.l1_loss(cycled[head], original[head])""",
        """
def masked_cycle_loss(cycled, original, head):
    if len({cycled.shape, original.shape, head.shape}) > 1:
        raise ValueError("shapes differ")
    return torch.where(head, (cycled - original).abs(), 0.0).sum() / head.sum()""",
    ],
    "pool": [
        pool(),
        """
class Pool:
    def __init__(self, size):
        self.size, self.buffer = size, None

    def __call__(self, fakes):
        fakes = fakes.detach().clone()
        if self.size == 0:
            return fakes
        for i in range(len(fakes)):
            new = fakes[i:i + 1].clone()
            if self.buffer is None or len(self.buffer) < self.size:
                self.buffer = new if self.buffer is None else torch.cat((self.buffer, new))
            elif random.random() > 0.5:
                j = torch.randperm(self.size)[0]
                fakes[i] = self.buffer[j]
                self.buffer[j] = new[0]
        return fakes""",
    ],
    "step_losses": [
        step(),
        """
def step_losses(nets, ct, mri, cycle_weight, identity_weight):
    def judged(discriminator, image):
        weights = {name: value.detach() for name, value in discriminator.named_parameters()}
        return torch.func.functional_call(discriminator, weights, (image,))

    l1 = nn.L1Loss()
    fake_mri, fake_ct = nets.G_ct2mri(ct), nets.G_mri2ct(mri)
    parts = [
        generator_loss(judged(nets.D_ct, fake_ct)),
        generator_loss(judged(nets.D_mri, fake_mri)),
        cycle_weight * l1(nets.G_ct2mri(fake_ct), mri),
        cycle_weight * l1(nets.G_mri2ct(fake_mri), ct),
        identity_weight * l1(nets.G_ct2mri(mri), mri),
        identity_weight * l1(nets.G_mri2ct(ct), ct),
    ]
    with torch.no_grad():
        old_mri, old_ct = nets.G_ct2mri(ct), nets.G_mri2ct(mri)
    return sum(parts), discriminator_loss(nets.D_ct(ct), nets.D_ct(old_ct)) + discriminator_loss(
        nets.D_mri(mri), nets.D_mri(old_mri)
    )""",
    ],
    "learning_rate": [
        """
def learning_rate(step, steps, base):
    if step <= steps / 2:
        return base
    return base * (steps - step) / (steps / 2)""",
        """
import numpy as np

def learning_rate(step, steps, base):
    return float(np.interp(step, [0, steps / 2, steps], [base, base, 0.0]))""",
    ],
    "update_average": [
        """
@torch.no_grad()
def update_average(average, network, memory):
    for a, p in zip(average.parameters(), network.parameters()):
        a.lerp_(p, 1 - memory)
    for a, b in zip(average.buffers(), network.buffers()):
        a.copy_(b)""",
        """
def update_average(average, network, memory):
    learned = {name for name, _ in network.named_parameters()}
    old = average.state_dict()
    average.load_state_dict(
        {
            name: memory * old[name] + (1 - memory) * value if name in learned else value
            for name, value in network.state_dict().items()
        }
    )""",
    ],
}
