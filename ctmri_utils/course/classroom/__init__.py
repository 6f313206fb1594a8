"""The classroom: assignments are released as zips, and what comes back is graded by nbgrader.

The modules, in the order in which a submission passes through them; `grading` calls 3 to 6.

1. `nbgrader_course` generates what is handed out.
2. `releasing` zips it.
3. `handed_in` unpacks what comes back, `owners` reads from names of files whose they are,
   `notebook_files` reads notebooks, and `roster` knows the class; of these `submissions` makes one
   submission for each student and assignment.
4. `mending` puts the answers into the released notebook.
5. `execution` runs it for nbgrader, in the kernel of `sandbox_kernel`, inside the `sandbox` that
   `confine` closes.
6. `marked_by_hand` keeps the teacher's marks, `feedback` makes the pages, and `learning_systems`
   writes the tables that are imported.
"""

from ...lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["learning_systems", "mending", "roster", "sandbox", "submissions"],
    submod_attrs={"grading": ["grade"], "releasing": ["release"]},
)
