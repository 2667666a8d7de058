"""Sphinx configuration."""

project = "hybridtumor"
author = "The hybridtumor developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
html_theme = "furo"
html_title = "hybridtumor"
exclude_patterns = ["_build"]
autodoc_mock_imports = ["SimpleITK", "dipy", "dolfinx", "dolfinx_solver", "monai", "mpi4py", "petsc4py", "pyvista", "torch", "ufl"]
autodoc_typehints = "description"
napoleon_google_docstring = False
