"""The model: networks, losses, training.

Read `networks`, `losses`, `model`, `batches` and `training` in this order: they are the whole
algorithm. Beside them stand `variants` (other networks), `architectures` (networks by name),
`remedies` (the losses of lesson 07), `augmentation`, `inputs` (what `fit` refuses), `engine` and
`tuning` (the machine), `fast_cpu` (the same layers, faster on a CPU) and `resume` (checkpoints).
This room knows tensors, not files.
"""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["losses", "networks", "remedies"],
    submod_attrs={
        "batches": ["Slices", "UnpairedBatches"],
        "losses": ["cycle_loss", "identity_loss", "adversarial_loss"],
        "model": ["CycleGAN", "ImagePool", "Translator", "frozen"],
        "networks": ["PatchDiscriminator", "ResnetGenerator"],
        "variants": ["UnetGenerator", "PixelDiscriminator"],
        "architectures": ["make_discriminator", "make_generator"],
        "training": ["fit"],
        "resume": ["load_checkpoint"],
    },
)
