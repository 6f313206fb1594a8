"""Where notebooks open: the badges and set-up cells of Colab and Kaggle, made from pyproject.toml.

python tests/notebooks/hosts.py                                 mend badges, cells and addresses
python tests/notebooks/hosts.py https://github.com/NAME/FORK    the same, for a new address
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COLAB = "https://colab.research.google.com"
KAGGLE = "https://www.kaggle.com/kernels/welcome?src="
KAGGLE_BADGE = "https://kaggle.com/static/images/open-in-kaggle.svg"

# Beside the lessons and assignments, these name the repository.
PAGES = ("README.md", "CONTRIBUTING.md", "notebooks/assignments/README.md")

BADGES = re.compile(
    r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*/(\w+)\.ipynb\)"
    r"( \[!\[Open in Kaggle\]\([^)]*\)\]\([^)]*\))?"
)
INSTALLED = re.compile(r"(ctmri-utils\[[\w,]+\] @ git\+)[^\s\"'\\]+")


@dataclass(frozen=True)
class Home:
    """Where the repository lies, and which version of it this is.

    Args:
        address: such as https://github.com/ctmri/ctmri-utils.
        version: as in pyproject.toml.
    """

    address: str
    version: str

    @property
    def revision(self) -> str:
        """What badges and set-up cells point to: the tag of a release, else the branch main."""
        return "main" if ".dev" in self.version else f"v{self.version}"

    @property
    def site(self) -> str:
        """Where GitHub Pages shows the course's site."""
        owner, repository = self.address.removeprefix("https://github.com/").split("/")
        return f"https://{owner.lower()}.github.io/{repository}/"

    @property
    def installed_from(self) -> str:
        return self.address if self.revision == "main" else f"{self.address}@{self.revision}"

    def badges(self, name: str) -> str:
        """The badges of notebooks/`name`.ipynb, in Markdown."""
        path = f"blob/{self.revision}/notebooks/{name}.ipynb"
        repo = self.address.removeprefix("https://github.com/")
        colab = f"[![Open In Colab]({COLAB}/assets/colab-badge.svg)]({COLAB}/github/{repo}/{path})"
        kaggle = f"[![Open in Kaggle]({KAGGLE_BADGE})]({KAGGLE}{self.address}/{path})"
        return f"{colab} {kaggle}"

    def setup_cell(self) -> str:
        """The first code cell of every lesson."""
        return (
            "import os\n"
            "import sys\n"
            "\n"
            "# On Kaggle, first switch on Internet, in the settings on the right.\n"
            'if "google.colab" in sys.modules or "KAGGLE_KERNEL_RUN_TYPE" in os.environ:\n'
            f'    %pip install -q "ctmri-utils[course] @ git+{self.installed_from}"'
        )


def home(root: Path = ROOT) -> Home:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return Home(project["urls"]["Repository"].removesuffix("/"), project["version"])


HERE = home()


def move(address: str, root: Path = ROOT) -> None:
    """Write another address into pyproject.toml."""
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        raise ValueError(f"{address} is no repository: write https://github.com/NAME/REPOSITORY")
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'^Repository = ".*"$', f'Repository = "{address}"', text, flags=re.M)
    site = Home(address, "").site
    text = re.sub(r'^Documentation = ".*"$', f'Documentation = "{site}"', text, flags=re.M)
    path.write_text(text, encoding="utf-8")


def mend(root: Path = ROOT) -> list[Path]:
    """Bring everything that names the repository or the version to what pyproject.toml says.

    The old address is that of CITATION.cff.

    Returns:
        The files changed.
    """
    here = home(root)
    citation = root / "CITATION.cff"
    old = re.search(r'^repository-code: "(.+)"$', citation.read_text(encoding="utf-8"), flags=re.M)

    paths = sorted((root / "notebooks").rglob("*.ipynb"))
    paths += [root / page for page in PAGES if (root / page).is_file()]
    changed = []
    for path in [*paths, citation]:
        before = path.read_text(encoding="utf-8")
        after = re.sub(rf"{re.escape(old[1])}(?![\w-])", here.address, before)
        after = after.replace(Home(old[1], "").site, here.site)
        after = INSTALLED.sub(lambda match: match[1] + here.installed_from, after)
        if path == citation:
            after = re.sub(r"^version: .*$", f'version: "{here.version}"', after, flags=re.M)
        elif path.suffix == ".md":
            after = BADGES.sub(lambda match: here.badges(match[1]), after)
        elif path.parent.name == "notebooks":
            after = mended_lesson(after, path.stem, here)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed


def mended_lesson(text: str, name: str, here: Home) -> str:
    """A lesson's file with the right badges in its first cell, and the right set-up cell."""
    notebook = json.loads(text)
    first = notebook["cells"][0]
    source = BADGES.sub(lambda _: here.badges(name), "".join(first["source"]), count=1)
    first["source"] = source.splitlines(keepends=True)

    setup = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    if "%pip install" in "".join(setup["source"]):
        setup["source"] = here.setup_cell().splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        move(sys.argv[1])
    print("\n".join(map(str, mend())) or "everything was right")
