"""The project's commands with a line of help, read from their source: needs no packages and starts nothing."""

import ast
from pathlib import Path

NEED_A_STACK = ("outbox_status", "demo", "send_test_notification", "chaos", "alerts")
"""Commands that are meaningless on servers that were started for the command alone."""


def listed(root: Path) -> str:
    """Return one line for each command."""
    found = {file.stem: _help(file) for file in root.glob("*/management/commands/[a-z]*.py")}
    width = max(map(len, found), default=0)
    return "".join(f"  {name:{width}}  {found[name]}\n" for name in sorted(found))


def _help(file: Path) -> str:
    """Return the first sentence of the command class's `help`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["help"]:
            return str(ast.literal_eval(node.value)).partition(". ")[0].rstrip(".")
    return ""
