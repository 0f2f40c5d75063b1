"""Build wheel and sdist into dist/: `python envs/release.py [ADDRESS]`; links of the README lead to ADDRESS."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "workflow/lmshape")
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def absolute(readme: str, address: str, tag: str) -> str:
    """Make the links of a README lead to a repository, files and folders as pages, pictures as files."""

    def link(found: re.Match[str]) -> str:
        picture, words, path, place = found.groups("")
        kind = "raw" if picture else "blob"
        return f"{picture}[{words}]({address}/{kind}/{tag}/{path}{place})"

    return LINK.sub(link, readme)


def stage(folder: Path, address: str) -> None:
    """Copy what a release is made of, with the addresses that the index shows."""
    for name in SOURCES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    if not address:
        print(
            "no address given: links in the README stay relative, and lead nowhere on the index",
            file=sys.stderr,
        )
        return
    version = re.search(r'__version__ = "(.+)"', (folder / "workflow/lmshape/__init__.py").read_text())
    assert version is not None, "the package names its version"
    readme, project = folder / "README.md", folder / "pyproject.toml"
    readme.write_text(absolute(readme.read_text(), address, f"v{version[1]}"))
    changes = f"{address}/blob/main/CHANGELOG.md"
    urls = f'[project.urls]\nRepository = "{address}"\nChangelog = "{changes}"\n\n'
    project.write_text(project.read_text().replace("[project.scripts]", f"{urls}[project.scripts]"))


def main() -> None:
    """Build in a folder of its own: the working tree stays as it is."""
    address = sys.argv[1].rstrip("/") if sys.argv[1:] else ""
    with TemporaryDirectory() as folder:
        stage(Path(folder), address)
        shutil.rmtree(ROOT / "dist", ignore_errors=True)
        subprocess.run([sys.executable, "-m", "build", "--outdir", ROOT / "dist", folder], check=True)


if __name__ == "__main__":
    main()
