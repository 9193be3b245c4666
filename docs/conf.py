"""Sphinx: `sphinx-build -W docs docs/_build` makes HTML of these pages and of the docstrings."""

from gpucompute import __version__

project = "gpucompute"
author = copyright = "the gpucompute developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"description": "NumPy functions as one fused loop", "fixed_sidebar": True}
exclude_patterns = ["_build"]
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say more, with shapes
default_role = "code"  # `name` in a docstring is code
