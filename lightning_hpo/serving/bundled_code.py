"""Source code that is saved with a registered model: `serving.text_model` and the modules that it imports."""

import hashlib
import re
from pathlib import Path

__all__ = ["write_bundled_code"]

_ROOT = Path(__file__).parents[1]
_LOADER = "serving.text_model"
# Indented imports, such as those for the type checker, are not followed.
_IMPORT = re.compile(r"^from lightning_hpo\.([\w.]+)", re.MULTILINE)


def write_bundled_code(folder: Path) -> tuple[Path, str]:
    """Write the modules to a folder, as a package whose name holds a digest of their source.

    A model therefore runs the code that it was verified with. One process can load models of several versions, and no
    bundle shadows an installed `lightning_hpo`.

    Returns:
        The folder of the package, and the name of the module that loads a model.
    """
    sources = _collect_sources()
    text = "".join(f"{module}\0{source}\0" for module, source in sorted(sources.items()))
    package = folder / f"lightning_hpo_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    for module, source in sources.items():
        path = package / _file_name(module)
        path.parent.mkdir(parents=True, exist_ok=True)
        # `__init__.py` is left out: ours imports every module of its folder, and Python imports folders without one.
        path.write_text(_IMPORT.sub(rf"from {package.name}.\1", source), encoding="utf-8")
    return package, f"{package.name}.{_LOADER}"


def _collect_sources() -> dict[str, str]:
    """Return the source of each module by its name below `lightning_hpo`."""
    sources: dict[str, str] = {}
    pending = [_LOADER]
    while pending:
        module = pending.pop()
        if module not in sources:
            sources[module] = (_ROOT / _file_name(module)).read_text(encoding="utf-8")
            pending += _IMPORT.findall(sources[module])
    return sources


def _file_name(module: str) -> str:
    return f"{module.replace('.', '/')}.py"
