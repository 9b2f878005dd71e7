"""Parts of the HTTP face that are its own business; the public module is ``durable_log.asgi``."""
