"""The code that a registered model brings along: `text_model`, and what that imports of this package."""

import hashlib
import re
from pathlib import Path

__all__ = ["write_served_code"]

_PACKAGE = Path(__file__).parent
_LOADER = "text_model"
_IMPORT = re.compile(r"^from lightning_hpo\.([\w.]+)", re.MULTILINE)


def write_served_code(folder: Path) -> tuple[Path, str]:
    """Write the modules as a package whose name holds a digest of them.

    So a model runs the code that it was proven with; models of several versions can be in one process, and none hides
    an installed lightning_hpo.

    Args:
        folder: Where the package goes.

    Returns:
        The package's folder, and the name of the module that loads a model.
    """
    sources = _sources()
    text = "".join(f"{module}\0{source}\0" for module, source in sorted(sources.items()))
    package = folder / f"lightning_hpo_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for module, source in sources.items():
        path = package / f"{module.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Without their `__init__`, which import all of their rooms, folders are packages still.
        path.write_text(_IMPORT.sub(rf"from {package.name}.\1", source), encoding="utf-8")
    return package, f"{package.name}.{_LOADER}"


def _sources() -> dict[str, str]:
    found: dict[str, str] = {}
    wanted = [_LOADER]
    while wanted:
        module = wanted.pop()
        if module not in found:
            found[module] = (_PACKAGE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
            wanted += _IMPORT.findall(found[module])
    return found
