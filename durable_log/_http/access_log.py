"""The access log: one JSON object a request, when it is over.

Law of this room: no header and no query gets here, for there are tokens and signatures in them. Lines go through
``logging``, to ``durable_log.access`` at INFO, and are the whole message. Event loop.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timezone
from typing import Final
from urllib.parse import quote

from durable_log._http.exchange import Exchange

log: Final = logging.getLogger("durable_log.access")


def write(exchange: Exchange) -> None:
    """Log a request that is over."""
    client, name = exchange.scope.get("client"), exchange.name
    moment = datetime.fromtimestamp(time.time(), timezone.utc)
    fields = {
        "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "method": exchange.scope["method"],
        "action": exchange.action,
        "stream": None if name is None else quote(name),
        "live": exchange.live,
        "status": exchange.status,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        "ms": round(exchange.elapsed() * 1000, 3),
        "client": client[0] if client else None,
    }
    log.info("%s", json.dumps(fields))
