"""The site: MyST pages, an executed notebook, a reference generated from the packages' own names.

Everything generated goes into `docs/_generated/` (never committed) when a build begins.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))
# cells of shell commands call the commands of this very environment
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
# Jupyter's debugger, which nobody attaches to, warns about frozen modules on stderr
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
# tables as wide as a page
os.environ["COLUMNS"] = "100"

project = "Sherlock Zoo"
author = "The Sherlock Zoo team"
copyright = "The Sherlock Zoo team, MIT licence"  # noqa: A001 - Sphinx's name
release = metadata.version("sherlock-zoo")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "numpydoc",
    "sphinx_click",
    "sphinx_copybutton",
    "generated",
]
exclude_patterns = ["_build", "_ext", "_generated"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 120
nb_execution_raise_on_error = True
nb_merge_streams = True

nitpicky = True
# modules inside the packages are nobody's names, and those of other packages are on the network
nitpick_ignore_regex = [(r"py:.*", r"(sherlock|xarray|numpy|torch|pathlib|pydantic|nn|abc).*")]
autodoc_typehints = "none"
autodoc_member_order = "bysource"
# what every pydantic model has
autodoc_default_options = {"exclude-members": "__version__, model_config, model_post_init"}
default_role = "code"
# two hyphens begin an option, everywhere
smartquotes = False
numpydoc_show_class_members = False

copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "Sherlock Zoo"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars = {page: [] for page in ("index", "quickstart", "tutorial", "sherlock", "problems")}
html_theme_options = {
    "header_links_before_dropdown": 8,
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
