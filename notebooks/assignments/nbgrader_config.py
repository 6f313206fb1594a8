"""nbgrader's settings for this course.

They are read by `make assignments`, `make grade`, the `nbgrader` command and its
JupyterLab extension.
"""

import os
import sys
from pathlib import Path

from ctmri_utils.course.classroom.execution import ExecuteToTheEnd
from ctmri_utils.course.classroom.feedback import (
    TEMPLATES,
    FeedbackGrades,
    FeedbackPage,
)
from ctmri_utils.course.classroom.sandbox import Limits
from nbconvert.preprocessors import ClearMetadataPreprocessor, CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    IgnorePattern,
    LimitOutput,
    SaveAutoGrades,
)

CELL_SECONDS = 60
NOTEBOOK_SECONDS = 240
OUTPUT_MB = 20
MEMORY_GB = 4
PROCESSES = 100
FILE_MB = 100

c = get_config()  # noqa: F821, given by traitlets
c.CourseDirectory.course_id = "ctmri"
c.CourseDirectory.root = str(Path(__file__).resolve().parent)

# nbgrader's own list, but for the first step.
c.Autograde.autograde_preprocessors = [
    ExecuteToTheEnd,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
c.ExecuteToTheEnd.timeout = CELL_SECONDS
c.ExecuteToTheEnd.notebook_seconds = NOTEBOOK_SECONDS
c.ExecuteToTheEnd.output_mb = OUTPUT_MB
c.ExecuteToTheEnd.extra_arguments = ["--IPKernelApp.log_level=50"]
c.SandboxedKernelManager.limits = Limits(
    memory_gb=MEMORY_GB, processes=PROCESSES, file_mb=FILE_MB
)

# `ctmri grade --unsafe` grades without the sandbox, with all rights of this account.
c.ExecuteToTheEnd.unsafe = os.environ.get("CTMRI_UNSAFE_GRADING") == "1"

# The sandbox has this limit of its own; other systems do not keep it, or have none.
if sys.platform == "linux" and c.ExecuteToTheEnd.unsafe:
    most_bytes = MEMORY_GB << 30
    set_limit = (
        "import resource; "
        f"resource.setrlimit(resource.RLIMIT_DATA, ({most_bytes}, {most_bytes})); "
        "del resource"
    )
    c.ExecuteToTheEnd.extra_arguments += [f"--IPKernelApp.exec_lines={set_limit}"]

# Our own page of feedback.
c.GenerateFeedback.exporter_class = FeedbackPage
c.GenerateFeedback.preprocessors = [FeedbackGrades, CSSHTMLHeaderPreprocessor]
c.FeedbackPage.template_name = "feedback_page"
c.FeedbackPage.extra_template_basedirs = [str(TEMPLATES)]

# nbgrader counts any text on stderr as a failed test, even a warning.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = "Warning"
