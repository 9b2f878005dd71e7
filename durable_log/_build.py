"""The recipe that turns ``csrc`` into the extension module ``durable_log._core``.

Law of this room: run by setup.py and never imported by the package. What Python sees of the C core is cut out of
``csrc/durable_log.h`` between its two cffi markers: there is no second copy of a declaration. What the binding has
besides is ``csrc/binding.h``. The module uses the stable ABI, so one build serves every Python from 3.10.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent
CSRC = ROOT / "csrc"


def declarations(header: str) -> str:
    """The part of the header between the cffi markers."""
    begin, end = "/* cffi: begin */", "/* cffi: end */"
    if header.count(begin) != 1 or header.count(end) != 1:
        raise ValueError(f"durable_log.h has {begin} and {end} exactly once each; restore the markers")
    return header.partition(begin)[2].partition(end)[0]


def relative(pattern: str) -> list[str]:
    """Files of ``csrc``, named from the project's root as setuptools wants them, in a stable order."""
    return sorted(path.relative_to(ROOT).as_posix() for path in CSRC.glob(pattern))


ffi = FFI()
ffi.cdef(declarations((CSRC / "durable_log.h").read_text("utf-8")))
ffi.set_source(
    "durable_log._core",
    '#include "binding.h"',
    sources=relative("*.c"),
    depends=relative("*.h"),
    include_dirs=["csrc"],
    define_macros=[("Py_LIMITED_API", "0x030A0000"), ("_FILE_OFFSET_BITS", "64")],
    extra_compile_args=["-std=c11", "-O3", "-fvisibility=hidden"],
)
