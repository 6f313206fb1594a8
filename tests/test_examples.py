"""The examples in the docstrings of public names run, and show what they say."""

import doctest
import inspect

import pytest

from ctmri_utils.course.site import api_reference

# What a reader calls first.
FIRST = {
    "CycleGAN",
    "Scale",
    "Window",
    "bone_dice",
    "browse",
    "check_folder",
    "compare",
    "evaluate",
    "fit",
    "load_scans",
    "load_translator",
    "mae_hu",
    "psnr_db",
    "read_volume",
    "settings_for",
    "ssim",
    "summarise",
    "synthetic_patients",
    "trained_translator",
    "translate_volume",
}


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False, exclude_empty=True)
    names = {name for room in api_reference.entries().values() for name in room}
    tests = []
    for name in sorted(names):
        documented = api_reference.resolve(name)
        if callable(documented) or inspect.ismodule(documented):
            tests += finder.find(documented, name, globs={})
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_an_example_shows_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTMRI_BUILD", str(tmp_path))
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    failures = []
    runner.run(example, out=failures.append)
    assert not failures, "".join(failures)


def test_what_a_reader_calls_first_has_an_example():
    assert FIRST <= {example.name for example in examples()}
