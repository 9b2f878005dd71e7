"""What pyproject.toml cannot say: the C core is built by cffi, against the stable ABI of Python 3.10."""

from setuptools import setup

setup(
    cffi_modules=["durable_log/_build.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
