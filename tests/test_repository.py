"""What a newcomer meets: templates, workflows, containers, the citation, and the version."""

import csv
import json
import re
import subprocess
import sys
import tomllib
from datetime import date
from importlib import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
WORKFLOWS = ROOT / ".github" / "workflows"
FORMS = ROOT / ".github" / "ISSUE_TEMPLATE"


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_ci_runs_every_python_on_three_systems():
    jobs = read(WORKFLOWS / "ci.yml")["jobs"]
    pythons = ["3.11", "3.12", "3.13"]
    assert all(job["strategy"]["matrix"]["python"] == pythons for job in jobs.values())
    systems = {job["runs-on"] for job in jobs.values()}
    systems |= set(jobs["lint-and-units"]["strategy"]["matrix"]["os"])
    assert {"ubuntu-latest", "windows-latest", "macos-latest"} <= systems


@pytest.mark.parametrize("name", ["ci.yml", "nightly.yml"])
def test_workflows_install_every_extra(name):
    [extras] = re.findall(r"-e '\.\[([\w,]+)\]'", (WORKFLOWS / name).read_text(encoding="utf-8"))
    assert set(extras.split(",")) == EXTRAS


def test_nightly_takes_the_newest_and_skips_only_the_tests_of_pins():
    text = (WORKFLOWS / "nightly.yml").read_text(encoding="utf-8")
    assert "schedule" in text and not re.search(r"(-c|--constraint) constraints\.txt", text)
    left_out = re.findall(r"--deselect (\S+)::(\w+)", text)
    assert len(left_out) == 2
    for path, name in left_out:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_readme_quotes_the_card_of_the_weights():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = re.search(r"error is ([\d.]+) HU\s\(95 % interval ([\d.]+) to ([\d.]+)\)", readme)
    mean, low, high = quoted.groups()
    card = (ROOT / "data/weights/heads.md").read_text(encoding="utf-8")
    assert f"| atlas, the usual contrast | {mean} [{low}, {high}] |" in card


def test_the_lessons_run_every_night_without_each_mr_person():
    job = read(WORKFLOWS / "nightly.yml")["jobs"]["without-a-person"]
    with (ROOT / "data" / "scans" / "manifest.csv").open(encoding="utf-8") as file:
        people = {row["patient"] for row in csv.DictReader(file) if row["modality"] == "mri"}
    assert set(job["strategy"]["matrix"]["person"]) == people
    commands = [step.get("run", "") for step in job["steps"]]
    assert commands[-2:] == [
        ".venv/bin/python data/remove_person.py ${{ matrix.person }}",
        "make course PROFILE=ci",
    ]


def test_every_lesson_runs_every_night_on_a_set_shaped_as_kaggle_s():
    commands = [
        step.get("run", "") for step in read(WORKFLOWS / "nightly.yml")["jobs"]["newest"]["steps"]
    ]
    assert "python tests/notebooks/kaggle_shaped.py build/kaggle-shaped" in commands
    [course] = [command for command in commands if "ctmri_utils course" in command]
    assert "-p DATASET build/kaggle-shaped" in course and "--lessons" not in course


def test_a_bug_report_asks_for_the_report():
    form = read(FORMS / "bug.yml")
    [report] = [part for part in form["body"] if "`ctmri report`" in str(part)]
    assert report["validations"]["required"]
    request = (ROOT / ".github" / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    assert "ctmri report" in request


@pytest.mark.parametrize("name", ["bug", "feature", "removal"])
def test_a_form_has_what_github_wants(name):
    form = read(FORMS / f"{name}.yml")
    assert form["name"] and form["description"]
    fields = [part for part in form["body"] if part["type"] != "markdown"]
    assert all(part["attributes"].get("label") for part in fields if part["type"] != "checkboxes")
    names = [part["id"] for part in fields]
    assert names and len(names) == len(set(names))


def test_a_removal_can_be_asked_for_without_giving_a_name():
    text = (FORMS / "removal.yml").read_text(encoding="utf-8")
    assert "This page is public" in text and "private way" in text
    assert (ROOT / re.search(r"data/\w+\.py", text)[0]).is_file()


def test_pre_commit_uses_the_tested_versions():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    hooks = {}
    for repository in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        for hook in repository["hooks"]:
            hooks[hook["id"]] = repository["rev"].removeprefix("v")
    assert set(hooks) == {"ruff-check", "ruff-format", "nbstripout", "codespell"}
    for hook, version in hooks.items():
        assert f"\n{hook.split('-')[0]}=={version}\n" in pins


def test_the_development_container_makes_the_environment():
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(text)
    assert container["postCreateCommand"] == "make develop"
    assert container["image"].endswith(":3.12")


def test_the_image_is_of_this_checkout_and_takes_nothing_private_along():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    extras = set(re.search(r"--editable '\.\[([\w,]+)\]'", text)[1].split(","))
    assert {"course", "classroom"} <= extras <= EXTRAS
    assert "--constraint constraints.txt" in text and "\nUSER student\n" in text
    left_out = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".git", ".venv", "build", "data/kaggle"} <= set(left_out)


def test_the_citation_has_what_the_format_asks_for():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    assert citation["type"] in ("software", "dataset")
    known = {"name", "family-names", "given-names", "orcid", "affiliation"}
    for work in [citation, *citation["references"]]:
        assert work["type"] and work["title"] and work["authors"]
        assert all(author and set(author) <= known for author in work["authors"])
    if "date-released" in citation:
        date.fromisoformat(citation["date-released"])


def test_the_citation_says_the_same_as_pyproject():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert ("date-released" in citation) == (".dev" not in citation["version"])


def test_the_version_is_that_of_the_installation_and_loads_late():
    program = (
        "import sys, ctmri_utils\n"
        "early = 'importlib.metadata' in sys.modules\n"
        "print(early, ctmri_utils.__version__)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert run.stdout.split() == ["False", metadata.version("ctmri-utils")], run.stderr


def test_a_release_wants_a_number_and_the_changelog_names_it():
    release = [sys.executable, str(ROOT / ".ci" / "release.py")]
    for words, sentence in (
        (["make", "0.2"], "0.2 is no version"),
        (["make"], "Make a release"),
        (["ship"], "Make a release"),
    ):
        run = subprocess.run([*release, *words], capture_output=True, text=True)
        assert run.returncode == 1 and run.stderr.startswith(sentence)
    notes = subprocess.run([*release, "notes"], capture_output=True, text=True, check=True)
    released = f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert bool(notes.stdout.strip()) == released
