"""CT <-> MR translation with CycleGAN.

The networks, losses, metrics and viewers that the lessons share.
"""
