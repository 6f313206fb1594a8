"""Make a release, and test its wheel where nothing else is installed.

python .ci/release.py make 0.2.0     commit and tag it, and begin the next version; pushes nothing
python .ci/release.py wheel          build the wheel of HEAD into dist/, and use it in an empty venv
python .ci/release.py notes          print what CHANGELOG.md says of this version

The tagged commit's badges and set-up cells point to the tag, those of main to main: both follow
from the version in pyproject.toml (tests/notebooks/hosts.py). A pushed tag is published by
.github/workflows/release.yml.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "notebooks"))

import hosts  # noqa: E402

UNRELEASED = "## [Unreleased]\n"

# Run with the wheel alone, outside of the checkout.
FIRST_USE = """
import ctmri_utils
from ctmri_utils import HU, Settings, load_scans, trained_translator

assert ctmri_utils.__version__ == "{version}", ctmri_utils.__version__
scans = load_scans("scans", Settings(scans_size=128), seed=2026)
model, source = trained_translator("heads", "laptop", seed=2026)
ct_hu = HU.from_network(model.translate(scans.test.mri[:1], "ct"))
assert ct_hu.min() < -900 and ct_hu.max() > 300, source
"""


def main(words: list[str]) -> None:
    if len(words) == 2 and words[0] == "make":
        make(words[1])
    elif words == ["wheel"]:
        print(wheel())
    elif words == ["notes"]:
        print(notes(hosts.home(ROOT).version))
    else:
        sys.exit(__doc__)


def git(*words: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *words], check=True, stdout=subprocess.PIPE)
    return done.stdout.decode().strip()


def make(version: str) -> None:
    """Commit and tag a release, and commit the beginning of the next version."""
    check(version)
    today = datetime.date.today().isoformat()
    edit("CHANGELOG.md", re.escape(UNRELEASED), f"{UNRELEASED}\n## [{version}] - {today}\n")
    set_version(version)
    edit("CITATION.cff", r"^(version: .*\n)", rf'\1date-released: "{today}"\n')
    git("commit", "--all", "--message", f"Release {version}")

    try:
        wheel()
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"{error}\nThe wheel does not work, so nothing is tagged. `git reset --hard HEAD~1` "
            "takes the release commit back."
        )
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")

    major, minor, _ = version.split(".")
    following = f"{major}.{int(minor) + 1}.0.dev0"
    edit("CITATION.cff", r"^date-released: .*\n", "")
    set_version(following)
    git("commit", "--all", "--message", f"Begin {following}")
    branch = git("branch", "--show-current")
    print(f"To publish it: git push --atomic origin {branch} v{version}")


def check(version: str) -> None:
    """Exit, with a sentence, if this cannot become a release."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        sys.exit(f"{version} is no version: write three numbers, such as 0.2.0")
    if git("status", "--porcelain"):
        sys.exit("there are changes that are not committed: commit or stash them first")
    if git("tag", "--list", f"v{version}"):
        sys.exit(f"v{version} exists: choose the next number")
    if not notes("Unreleased"):
        sys.exit("CHANGELOG.md has nothing under Unreleased: write what changed")


def notes(version: str) -> str:
    """The section of a version in CHANGELOG.md, without its heading."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", text, flags=re.M | re.S
    )
    return section[1].strip() if section else ""


def edit(name: str, pattern: str, replacement: str) -> None:
    path = ROOT / name
    text, count = re.subn(
        pattern, replacement, path.read_text(encoding="utf-8"), count=1, flags=re.M
    )
    if not count:
        sys.exit(f"{name} has no line {pattern!r}: mend it by hand")
    path.write_text(text, encoding="utf-8")


def set_version(version: str) -> None:
    """Write the version into pyproject.toml, and everything that follows from it."""
    edit("pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    hosts.mend(ROOT)


def wheel() -> Path:
    """Build the wheel of HEAD, install it into an empty environment and use it there.

    Returns:
        The wheel, in dist/.
    """
    with tempfile.TemporaryDirectory() as place:
        source, environment = Path(place) / "source", Path(place) / "environment"
        git("archive", "--output", f"{place}/source.tar", "HEAD")
        with tarfile.open(f"{place}/source.tar") as archive:
            archive.extractall(source, filter="data")
        run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", place, str(source))
        [built] = Path(place).glob("*.whl")

        venv.create(environment, with_pip=True)
        python = str(environment / ("Scripts" if os.name == "nt" else "bin") / "python")
        run(python, "-m", "pip", "install", "--quiet", f"{built}[course]")
        version = hosts.home(source).version
        run(python, "-c", FIRST_USE.format(version=version), cwd=place)
        run(python, "-m", "ctmri_utils", "report", cwd=place)
        train = ("train", "--profile", "ci", "--steps", "2", "--output", f"{place}/run")
        run(python, "-m", "ctmri_utils", *train, cwd=place)

        (ROOT / "dist").mkdir(exist_ok=True)
        return Path(shutil.copy(built, ROOT / "dist"))


def run(*command: str, cwd: str | Path = ROOT) -> None:
    subprocess.run(command, check=True, cwd=cwd)


if __name__ == "__main__":
    main(sys.argv[1:])
