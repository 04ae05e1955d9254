"""Undocumented names of other packages are on one list, so that an upgrade that changes them fails here."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys

import pytest

from tests.processes import ROOT

LIST = ROOT / "docs" / "decisions" / "0035-private-names-are-listed.md"
PACKAGES = ("amqp", "billiard", "celery", "gunicorn", "interlock", "kombu")
APPS = ("outbox", "orders", "notifications", "orderflow")
SERVERS = ("orderflow/stack/", "orderflow/sandbox/", "orderflow/chaos/")

DOCUMENTED = {
    "celery.app.task.Task",
    "celery.bootsteps.Step",
    "celery.bootsteps.StartStopStep",
    "gunicorn.glogging.Logger",
}
"""Classes that are meant to be subclassed."""

CONVENTIONS = {"_meta", "_state", "_replace", "_asdict", "_default_manager", "_exit", "_make"}
"""Documented names of Python and Django that begin with an underscore."""


def listed():
    """Yield each name on the list: its owner, the name, and where it is used."""
    for row in LIST.read_text().splitlines():
        if found := re.fullmatch(r"\| `([\w.]+)`: ([^|]+) \| ([^|]+) \| [^|]+ \|", row):
            for name in re.findall(r"`(\w+)`", found[2]):
                yield found[1], name, re.findall(r"`([\w/.]+)`", found[3])


NAMES = list(listed())


def resolve(address):
    """Return the module, class or function at a dotted path."""
    parts = address.split(".")
    for depth in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:depth]))
        except ModuleNotFoundError:
            continue
        for part in parts[depth:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(address)


def has(owner, name):
    """Return whether the owner has the name, or its class sets it on its instances."""
    if hasattr(owner, name):
        return True
    kinds = owner.__mro__[:-1] if inspect.isclass(owner) else ()
    return any(re.search(rf"\b(?:self|proc)\.{name}\b[^=\n]*=", inspect.getsource(kind)) for kind in kinds)


@pytest.mark.parametrize(
    ("owner", "name", "places"), NAMES, ids=[f"{owner}.{name}" for owner, name, _ in NAMES]
)
def test_a_private_name_is_still_there_and_still_used(owner, name, places):
    assert has(resolve(owner), name), f"{owner} has no {name} any more; {', '.join(places)} depends on it"
    assert any(re.search(rf"\b{name}\b", (ROOT / place).read_text()) for place in places), (
        "take it off the list"
    )


def modules():
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "migrations" not in path.parts and not name.startswith(SERVERS):
                yield name, ast.parse(path.read_text())


def test_every_private_name_in_use_is_listed():
    trees = dict(modules())
    own = {
        node.name
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        else getattr(node, "attr", None) or node.id
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        or (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and ast.unparse(node.value) in {"self", "cls"}
        )
    }
    reached = {
        (name, node.attr)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and re.match("_[^_]", node.attr)
    } | {
        (name, alias.name)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES
        for alias in node.names
        if alias.name.startswith("_")
    }
    known = {name for _, name, _ in NAMES} | own | CONVENTIONS

    assert not {(place, name) for place, name in reached if name not in known}, f"add it to {LIST.name}"


def overridden():
    """Yield what the project's classes override in classes that are not meant for it, with the class's name."""
    for name in [name for name in sys.modules if name.split(".")[0] in APPS]:
        for kind in [kind for kind in vars(sys.modules[name]).values() if inspect.isclass(kind)]:
            if kind.__module__ != name:
                continue
            for base in kind.__mro__[1:]:
                address = f"{base.__module__}.{base.__name__}"
                if base.__module__.split(".")[0] in PACKAGES and address not in DOCUMENTED:
                    yield from (
                        (kind, address, each) for each in vars(kind) if each in vars(base) and "__" not in each
                    )


def test_every_overridden_private_method_is_listed():
    for name in ("outbox/worker", "outbox/broker", "orderflow/shared_state", "orderflow/web"):
        for path in (ROOT / name).glob("*.py"):
            importlib.import_module(
                ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            )
    known = {name for _, name, _ in NAMES}

    found = {(kind.__name__, address, name) for kind, address, name in overridden()}
    assert found
    assert not {each for each in found if each[2] not in known}, f"add it to {LIST.name}"
