"""Sphinx configuration of the documentation site."""

import re

from sphinx.application import Sphinx

from lightning_hpo import __version__

project = "lightning_hpo"
release = __version__
root_doc = "README"
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_inherit_docstrings = False
# Other packages cannot be looked up offline. Types in signatures may be internal and have no entry.
nitpick_ignore_regex = [(r"py:.*", r"(?!lightning_hpo\.).*"), (r"py:class", r"lightning_hpo\..*")]


def setup(app: Sphinx) -> None:
    """Add the table of contents, and accept Markdown code blocks in docstrings."""
    app.connect("source-read", _add_contents)
    app.connect("autodoc-process-docstring", _convert_code_blocks)


def _add_contents(_app: Sphinx, page: str, source: list[str]) -> None:
    # Not in README.md itself, because GitHub would show the directive as text.
    if page == root_doc:
        listed = "\n".join(re.findall(r"\]\(([\w/-]+)\.md\)", source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{listed}\n```\n"


def _convert_code_blocks(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    inside, converted = False, list[str]()
    for line in lines:
        if line.startswith("```"):
            inside = not inside
            converted += ["", f".. code-block:: {line[3:] or 'text'}", ""] if inside else [""]
        else:
            converted.append(f"    {line}" if inside else line)
    lines[:] = converted
