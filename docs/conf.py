"""Sphinx configuration."""

project = "hybridtumor"
author = "The hybridtumor developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_theme = "furo"
html_title = "hybridtumor"
exclude_patterns = ["_build"]
autodoc_typehints = "none"
napoleon_google_docstring = False
