"""
Whether a dotted path leads to something, found out without importing it.

Adapters load the libraries of their providers: 13 MB, of which most processes need nothing.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from django.utils.module_loading import import_string


def complaint(path: str) -> str:
    """
    Return why `path` cannot be imported; empty if it can, or if only an import could tell.

    It imports the packages above the module only, and reads the names that its compiled code contains.
    """
    module, _, name = path.rpartition(".")
    try:
        if module in sys.modules or not module:
            import_string(path)
            return ""
        spec = find_spec(module)
        if spec is None:
            return f"No module named {module!r}"
        loader: Any = spec.loader
        code = loader.get_code(module) if hasattr(loader, "get_code") else None
    except (ImportError, SyntaxError) as error:
        return str(error)
    if code is None or name in code.co_names or ("*",) in code.co_consts:
        return ""
    return f'Module "{module}" does not define a "{name}" attribute/class'
