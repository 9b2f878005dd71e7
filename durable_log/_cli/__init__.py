"""What the commands do, one module a matter; the public module is ``durable_log.cli``."""
