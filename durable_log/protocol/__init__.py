"""The Durable Streams HTTP protocol as pure functions.

Law of this room: values in, values out. No I/O, no clock, no randomness, no threads, no asyncio; time and jitter are
arguments. Nothing here speaks to a store or knows how bytes reach a socket. Any thread may call anything.
"""
