"""The rooms of the code keep to their doors: who may import whom, and what no room may touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "durable_log"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
C_FILES = sorted(path.name for path in (ROOT / "csrc").glob("*.[ch]"))

LINES_MAX = 400
FUNCTION_LINES_MAX = 70

ROOMS = {
    "errors": set(),
    "model": {"errors", "_core"},
    "protocol": {"errors", "model", "protocol", "_core"},
    "engine": {"errors", "model", "engine", "_core"},
    "_face": {"errors", "model", "protocol"},
    "store": {"errors", "model", "protocol", "_face", "engine"},
    "_loop": {"errors", "model", "engine"},
    "aio": {"errors", "model", "protocol", "_face", "_loop", "engine"},
    "access": {"errors", "model", "access"},
    "_http": {"errors", "model", "protocol", "aio", "access", "_http"},
    "_subscriptions": {"errors", "model", "protocol", "aio", "_subscriptions"},
    "asgi": {"errors", "model", "protocol", "aio", "access", "_http", "_subscriptions"},
    "wsgi": {"errors", "model", "protocol", "access", "_http"},
    "operations": {"errors", "protocol", "_http"},
    "_cli": {"", "errors", "model", "protocol", "engine", "store", "aio", "access", "asgi", "operations", "_cli"},
    "cli": {"_cli"},
    "": {"errors", "model", "protocol", "_face", "engine", "store", "aio", "asgi"},
    "_build": set(),
}
"""What each room may import of the package; "" is the package itself."""

FOR_TYPES_ONLY = {"asgi": {"store"}, "wsgi": {"store"}, "operations": {"asgi"}}

PURE = ("_subscriptions/machine.py", "_subscriptions/links.py", "_subscriptions/records.py")
"""Modules that decide and calculate, in a room of others that wait and write."""

FORBIDDEN = {
    "protocol": {"os", "time", "threading", "asyncio", "socket"},
    "engine": {"asyncio", "json", "http"},
}
OPERATING_SYSTEM = {"os", "fcntl", "mmap"}
ITS_CALLERS = ("engine/files.py", "engine/ownership.py")
"""Of the engine, what may touch it."""


class Import(NamedTuple):
    module: str
    typing_only: bool


def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text("utf-8"), module)


def room_of(name: str) -> str:
    """The room of a module of the package by its dotted name; "" for what the package itself exports."""
    first = name.split(".")[1] if "." in name else ""
    known = first in ROOMS or first == "_core" or (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists()
    return first if known else ""


def is_typing_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree: ast.AST, package: str, typing_only: bool = False) -> Iterator[Import]:
    """Everything that is imported anywhere, by its full name; ``package`` is what relative imports start from."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, typing_only) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: 1 - node.level or None]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from (Import(f"{module}.{alias.name}", typing_only) for alias in node.names)
        elif is_typing_guard(node):
            for inside in node.body:
                yield from imports(ast.Module([inside], []), package, True)
            for inside in node.orelse:
                yield from imports(ast.Module([inside], []), package, typing_only)
        else:
            yield from imports(node, package, typing_only)


def imports_of(module: str) -> list[Import]:
    package = ".".join(("durable_log", *Path(module).parts[:-1]))
    return list(imports(parsed(module), package))


def own_room(module: str) -> str:
    first = Path(module).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@pytest.mark.parametrize("module", MODULES)
def test_a_module_belongs_to_a_room_of_the_design(module):
    assert own_room(module) in ROOMS


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_it_may(module):
    room = own_room(module)
    for imported in imports_of(module):
        if imported.module.split(".")[0] != "durable_log":
            continue
        allowed = ROOMS[room] | (FOR_TYPES_ONLY.get(room, set()) if imported.typing_only else set())
        assert room_of(imported.module) in allowed, f"{module} may not import {imported.module}"


@pytest.mark.parametrize("module", MODULES)
def test_a_room_leaves_to_others_what_is_theirs(module):
    forbidden = FORBIDDEN.get(own_room(module), set())
    if own_room(module) == "engine" and module not in ITS_CALLERS:
        forbidden = forbidden | OPERATING_SYSTEM
    touched = {imported.module.split(".")[0] for imported in imports_of(module)}
    assert not touched & forbidden


@pytest.mark.parametrize("module", PURE)
def test_what_decides_neither_waits_nor_asks_for_the_time(module):
    touched = {imported.module for imported in imports_of(module)}
    roots = {name.split(".")[0] for name in touched}
    assert not roots & (FORBIDDEN["protocol"] | {"random", "secrets", "logging"})
    assert not any(name.startswith("durable_log.aio") for name in touched)


@pytest.mark.parametrize("module", [name for name in MODULES if own_room(name) in ("engine", "protocol")])
def test_only_one_module_opens_files(module):
    calls = (node.func for node in ast.walk(parsed(module)) if isinstance(node, ast.Call))
    opens = [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "open"]
    assert module == "engine/files.py" or not opens


@pytest.mark.parametrize("module", MODULES)
def test_a_module_opens_with_its_law(module):
    assert ast.get_docstring(parsed(module))


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_short(module):
    assert len((PACKAGE / module).read_text("utf-8").splitlines()) <= LINES_MAX


@pytest.mark.parametrize("name", C_FILES)
def test_a_c_file_is_short_and_opens_with_its_law(name):
    text = (ROOT / "csrc" / name).read_text("utf-8")
    # durable_log.h is the list of all that Python sees, and cffi reads it in one piece.
    assert len(text.splitlines()) <= (LINES_MAX if name != "durable_log.h" else 600)
    assert text.startswith("/* ")
    assert "Law of this room:" in text


@pytest.mark.parametrize("module", MODULES)
def test_a_function_is_short(module):
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documented = ast.get_docstring(node) is not None
            docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0
            lines = node.end_lineno - node.lineno + 1 - docstring
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} in {module} has {lines} lines"


def seen(source: str, package: str = "durable_log.engine") -> set[tuple[str, bool]]:
    return set(imports(ast.parse(source), package))


def test_relative_imports_are_followed():
    assert seen("from . import index") == {("durable_log.engine.index", False)}
    assert seen("from .index import Index") == {("durable_log.engine.index.Index", False)}
    assert seen("from ..store import Store") == {("durable_log.store.Store", False)}
    assert seen("from .. import aio") == {("durable_log.aio", False)}


def test_imports_inside_of_functions_count():
    assert seen("def f():\n    import os.path") == {("os.path", False)}


def test_imports_for_types_are_told_apart():
    source = "if TYPE_CHECKING:\n    from a import b\nelse:\n    import c\n"
    assert seen(source) == {("a.b", True), ("c", False)}


def test_a_name_of_the_package_is_not_a_room():
    assert room_of("durable_log.open") == ""
    assert room_of("durable_log") == ""
    assert room_of("durable_log.engine.index.Index") == "engine"
    assert room_of("durable_log._core.lib") == "_core"
