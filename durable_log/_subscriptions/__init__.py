"""Subscriptions: durable cursors that wake workers (PROTOCOL.md §6, §7).

Law of this room: everything but look-ups of names runs on one event loop, that of the server, and speaks to the store
through ``aio`` alone.
``machine``, ``links`` and ``records`` are pure. What a client is told is durable before: see ``active``.
"""
