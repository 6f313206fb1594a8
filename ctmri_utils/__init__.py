"""CT <-> MR translation with CycleGAN: the names that lessons and readers use.

Everything here is loaded when it is first used, so that `import ctmri_utils` is quick and does
without torch. `__init__.pyi` lists the names for editors, and says in which room each one lives.
"""

import lazy_loader

from .lazy_names import suggesting

load_name, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
load_or_suggest = suggesting(__name__, load_name, __all__)


def __getattr__(name: str):
    if name == "__version__":
        # Imported here because it is slow.
        from importlib.metadata import version

        return version("ctmri-utils")
    return load_or_suggest(name)
