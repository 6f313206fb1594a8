"""CT <-> MR translation with CycleGAN: the networks, losses, metrics and viewers that the lessons share."""
