"""The site of docs/: `make docs` builds it, offline, and a warning is an error."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).parent
LIBRARY = str(DOCS.parent / "workflow")  # for this process and the kernels of the notebooks
sys.path[:0] = [str(DOCS / "extensions"), LIBRARY]
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [LIBRARY, os.environ.get("PYTHONPATH")]))

from lmshape import __version__  # noqa: E402  # found through the lines above

project = "lmshape"
author = "The lmshape developers"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference",
]
exclude_patterns = ["_build", "data/README.md"]
nitpicky = True
# What stands for a type in our docstrings is words: "(n,) float64, nats". Links to lmshape's own names must lead there.
nitpick_ignore_regex = [("py:.*", r"(?!lmshape).*")]

html_theme = "furo"
html_title = f"lmshape {version}"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# The pages show the excerpt that the repository carries, whatever study lies below results/.
os.environ["LMSHAPE_TABLES"] = str(DOCS / "data")
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True
nb_code_prompt_show = "The code behind it"
nb_code_prompt_hide = "Hide the code"

autodoc_typehints = "none"  # docstrings say shapes and types in words
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_custom_sections = ["Returns"]  # ours are sentences, without a line for the type
PARAMETER = re.compile(r"^(\w[\w, *]*) : (.+)$", re.MULTILINE)
default_role = "code"  # single backticks of docstrings: arguments, mostly
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: Sphinx) -> None:
    """Read the docstrings as they are meant, before napoleon does."""
    app.connect("autodoc-process-docstring", _reread, priority=400)


def _reread(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Escape bars, which are norms here; what follows a parameter's colon describes it, and is not a type."""
    described = "\n".join(lines).replace("|", r"\|")
    lines[:] = PARAMETER.sub(r"\1\n    \2", described).split("\n")
