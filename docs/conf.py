"""Sphinx configuration: MyST pages, the furo theme, and reference pages generated from the code."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]

project = "twotower"
author = "the twotower authors"
copyright = f"2026, {author}"  # noqa: A001  (Sphinx's name)
release = version = version_of("twotower")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "mathml",
    "reference_pages",
]
exclude_patterns = ["_build", "_generated"]
suppress_warnings = ["misc.highlighting_failure"]  # JSON examples are shortened with "..."
smartquotes = False  # they would turn the "--" of options into a dash

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_class_signature = "separated"  # so that a page can leave a constructor out
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"twotower {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_math_renderer = "mathml"
html_show_sourcelink = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
