"""CT <-> MR translation with CycleGAN: the names that lessons and readers use.

Everything here is loaded when it is first used, so that `import ctmri_utils` is quick and does
without torch. `__init__.pyi` lists the names for editors, and says in which room each one lives.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
