"""The files of a store as text.

Law of this room: what is in them is told by the engine, one thing after the other; here it becomes lines. No lock is
taken, so of a store that is in use it shows what happens to be there. Main thread only.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import click

from durable_log._cli.output import put
from durable_log.engine.dump import Thing
from durable_log.engine.dump import dump as things_in
from durable_log.engine.files import LOCK_NAME, Directory, directory_to_look_at
from durable_log.engine.quarantine import FINDINGS, QUARANTINE, REPORT_JSON, REPORT_TEXT


def dump(path: str, *, payload: bool, as_json: bool) -> None:
    """Show a file of a store, or all of them."""
    where = Path(path)
    if not where.exists():
        raise click.ClickException(f"{path} is not there; name a file of a store, or its directory")
    if where.is_file():
        _dump_file(directory_to_look_at(where.parent), where.name, payload=payload, as_json=as_json, prefix="")
    else:
        _dump_all(where, payload=payload, as_json=as_json, prefix="")


def _dump_all(where: Path, *, payload: bool, as_json: bool, prefix: str) -> None:
    directory = directory_to_look_at(where)
    for name in directory.names():
        if (where / name).is_file() and name != LOCK_NAME:
            _dump_file(directory, name, payload=payload, as_json=as_json, prefix=prefix)
        elif name == QUARANTINE or prefix.startswith(QUARANTINE):
            _dump_all(where / name, payload=payload, as_json=as_json, prefix=f"{prefix}{name}/")


def _dump_file(directory: Directory, name: str, *, payload: bool, as_json: bool, prefix: str) -> None:
    if name in (REPORT_TEXT, REPORT_JSON, FINDINGS):
        _show_report(directory, name, as_json=as_json, prefix=prefix)
        return
    for thing in things_in(directory, name, payload=payload):
        put(_as_json(prefix + name, thing) if as_json else _as_text(prefix + name, thing))


def _show_report(directory: Directory, name: str, *, as_json: bool, prefix: str) -> None:
    if name != REPORT_TEXT:
        return
    file = directory.open(name)
    text = file.read(0, file.size()).decode("utf-8", "replace")
    file.close()
    for line in text.splitlines():
        report = {"at": 0, "is": "report", "text": line}
        put(_as_json(prefix + name, report) if as_json else f"{prefix}{name}: {line}\n")


def _as_json(file: str, thing: Thing) -> str:
    payload = thing.get("payload")
    if payload is not None:
        thing = {**thing, "payload": base64.b64encode(payload).decode()}
    return json.dumps({"file": file, **thing}, ensure_ascii=False) + "\n"


def _as_text(file: str, thing: Thing) -> str:
    fields = [f"{key} {_shown(value)}" for key, value in thing.items() if key not in ("at", "is", "damage")]
    damage = f"DAMAGED: {thing['damage']}" if "damage" in thing else ""
    return f"{file} {thing['at']:>10} {thing['is']:<9} {'; '.join([*fields, damage] if damage else fields)}\n"


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str | bytes) and not _is_plain(value) else str(value)


def _is_plain(value: str | bytes) -> bool:
    return isinstance(value, str) and value.isprintable() and " " not in value and value != ""
