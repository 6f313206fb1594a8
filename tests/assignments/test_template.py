"""The repository that students get: links, and a workflow that grades by the visible tests."""

import base64
import json
import re

import nbformat
import pytest
import yaml

from ctmri_utils.course.addresses import repository
from ctmri_utils.course.visible import main, visible_marks

UNITS = "01_units_windows_splits"
REPOSITORY = repository()


@pytest.fixture
def template(course):
    return course.build / "classroom"


def test_every_released_notebook_has_a_colab_and_a_kaggle_link(template, sources):
    page = (template / "README.md").read_text(encoding="utf-8")
    owner = REPOSITORY.removeprefix("https://github.com/")
    for name in sources:
        assert (template / name / f"{name}.ipynb").is_file()
        place = f"blob/assignments/{name}/{name}.ipynb"
        assert f"(https://colab.research.google.com/github/{owner}/{place})" in page
        assert f"(https://www.kaggle.com/kernels/welcome?src={REPOSITORY}/{place})" in page


def test_the_template_holds_nothing_but_what_students_may_see(template, sources, released):
    files = {path.relative_to(template).as_posix() for path in template.rglob("*.*")}
    files = {file for file in files if (template / file).is_file()}
    notebooks = {f"{name}/{name}.ipynb" for name in sources}
    assert files == notebooks | {"README.md", ".github/workflows/classroom.yml"}
    for name in sources:
        assert nbformat.read(template / name / f"{name}.ipynb", 4) == released(name)


def test_the_workflow_is_sound_yaml_and_reports_what_it_computes(template):
    path = template / ".github" / "workflows" / "classroom.yml"
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"push", "workflow_dispatch"} <= set(workflow[True])  # YAML reads `on` as true
    [job] = workflow["jobs"].values()
    steps = job["steps"]
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert all(re.fullmatch(r"[\w./-]+@v\d+", step["uses"]) for step in steps if "uses" in step)
    assert f"git+{REPOSITORY}" in steps[2]["run"]

    # The reporter reads the environment variable ID_RESULTS of each runner.
    runner = steps[-1]["with"]["runners"]
    assert steps[-1]["env"] == {f"{runner.upper()}_RESULTS": "${{ steps.visible.outputs.result }}"}
    [step] = [step for step in steps if step.get("id") == runner]
    assert step["run"].startswith("python -m ctmri_utils.course.visible")


def test_visible_tests_tell_a_solved_from_a_blank_notebook(
    template, solved, tmp_path, monkeypatch, capsys
):
    blank = visible_marks(template / UNITS / f"{UNITS}.ipynb")
    assert [test["score"] for test in blank] == [0] * 6
    assert sum(test["max_score"] for test in blank) == 22
    assert all("NotImplementedError" in test["message"] for test in blank)

    (tmp_path / UNITS).mkdir()
    nbformat.write(solved, tmp_path / UNITS / f"{UNITS}.ipynb")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    main(tmp_path)
    assert "22 of 22 by the visible tests" in capsys.readouterr().out
    line = (tmp_path / "output").read_text()
    result = json.loads(base64.b64decode(line.removeprefix("result=")))
    assert result["status"] == "pass" and result["max_score"] == 22 and len(result["tests"]) == 6


def test_a_repository_without_assignments_is_said(tmp_path):
    with pytest.raises(SystemExit, match="holds no assignment"):
        main(tmp_path)
