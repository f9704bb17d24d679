"""The documents' site: ``sphinx-build -EW docs docs/_build``. Nothing is fetched to build the site, nor to read it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "hsa2c"
project_copyright = "2026, the authors of hsa2c"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "from_sources"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4  # a link may name any heading, as GitHub does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = "hsa2c"
html_copy_source = False
