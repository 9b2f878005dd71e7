"""The storage engine: threads and files.

Law of this room: nothing here knows of asyncio, HTTP or JSON. Everything that changes belongs to whoever holds the
commit lock; readers take snapshots. The faces use :class:`durable_log.engine.log.LogEngine` and no other module.
"""
