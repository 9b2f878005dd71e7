"""The hand-written types of the compiled core say what the compiled core has."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import durable_log
from durable_log._core import ffi, lib

STUB = ast.parse((Path(durable_log.__path__[0]) / "_core.pyi").read_text("utf-8"))


def members(class_name: str) -> dict[str, ast.FunctionDef | ast.AnnAssign]:
    body = next(node.body for node in STUB.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    named = {}
    for node in body:
        if isinstance(node, ast.FunctionDef):
            named[node.name] = node
        elif isinstance(node, ast.AnnAssign):
            named[node.target.id] = node
    return named


LIB = members("_Lib")
FUNCTIONS = sorted(name for name, node in LIB.items() if isinstance(node, ast.FunctionDef))
CONSTANTS = sorted(set(LIB) - set(FUNCTIONS))


def test_the_stub_and_the_module_have_the_same_names():
    assert sorted(LIB) == sorted(dir(lib))


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_an_integer(name):
    assert type(getattr(lib, name)) is int


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_what_the_stub_says(name):
    arguments = LIB[name].args
    taken = [*arguments.posonlyargs, *arguments.args][1:]
    compiled = ffi.typeof(getattr(lib, name)).args
    assert len(taken) == len(compiled)
    for parameter, ctype in zip(taken, compiled, strict=True):
        annotation = ast.unparse(parameter.annotation)
        expected = "int"
        if ctype.kind == "pointer":
            expected = "CData"
        assert annotation == expected or (annotation == "CData | bytes" and ctype.cname == "uint8_t *"), parameter.arg


@pytest.mark.parametrize("name", sorted(members("_FFI")))
def test_the_ffi_has_what_the_stub_says(name):
    assert hasattr(ffi, name)
