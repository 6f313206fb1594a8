"""The model: networks, losses, training.

Read `networks`, `losses`, `model`, `batches` and `training` in this order: they are the whole
algorithm. Beside them stand `variants` (other networks), `remedies` (the losses of lesson 07),
`resume` (checkpoints) and `fast_cpu` (the same layers, faster on a CPU). This room knows tensors,
not files.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=[
        "augmentation",
        "batches",
        "fast_cpu",
        "losses",
        "model",
        "networks",
        "remedies",
        "resume",
        "training",
        "tuning",
        "variants",
    ],
    submod_attrs={
        "batches": ["Slices", "UnpairedBatches"],
        "losses": ["cycle_loss", "identity_loss", "adversarial_loss"],
        "model": ["CycleGAN", "ImagePool", "Translator", "frozen"],
        "networks": ["PatchDiscriminator", "ResnetGenerator"],
        "variants": ["UnetGenerator", "PixelDiscriminator", "make_discriminator", "make_generator"],
        "training": ["fit"],
        "resume": ["load_checkpoint"],
    },
)
