"""How Sphinx makes the site; ``make docs`` runs it with every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipython_pygments_lexers import IPython3Lexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from docs.reference import filled  # noqa: E402
from qmt_jupyter import __version__  # noqa: E402

project = "qmt-jupyter"
author = "the authors of qmt-jupyter"
project_copyright = author
version = release = __version__
language = "en"
# A sentence that is copied from a page, or searched for on it, is the program's, quotes and all.
smartquotes = False
extensions = ["myst_parser", "sphinx.ext.autodoc"]
nitpicky = True
# Types of other projects: their pages are elsewhere, and this build contacts nobody.
nitpick_ignore_regex = [("py:.*", r"(?!qmt_jupyter\.).*")]

# A link to a heading that is not there is a broken link, as one to a page is.
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "inherited-members": "Exception"}
autodoc_member_order = "bysource"
autodoc_typehints = "none"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "qmt-jupyter"
html_copy_source = False
# From file:// a page cannot read others, which the excerpts below what was found would need.
html_show_search_summary = False
html_show_copyright = False


def fill(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put the flags, which the parsers know, where a page asks for them."""
    source[0] = filled(source[0])


def shorten(
    _app: Sphinx, what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """A module's docstring is for who reads the code; here its page says what is to be said."""
    if what == "module":
        lines.clear()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", shorten)
    # Cells may hold magics, and a %%chat cell any language at all.
    app.add_lexer("python", IPython3Lexer)
