"""Run the lessons in order, resume a course that was stopped, and say how long it still takes."""

from ...lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["records", "run", "time_left"],
    submod_attrs={"run": ["LessonFailed", "dataset_parameter", "find_lessons", "run_course"]},
)
