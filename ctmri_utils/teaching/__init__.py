"""What the lessons and assignments import: Mira, checks of answers, and the plots of each lesson.

`plots_N.py` draws what lesson N shows, `exercises_N.py` checks the answers to its exercises, and
`checks_N.py` those to assignment N.
"""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submod_attrs={
        "checking": ["check_answer"],
        "patient": ["mira", "mira_volume"],
    },
)
