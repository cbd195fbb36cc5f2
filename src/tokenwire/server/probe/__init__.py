"""What stands between a client and this server, told by a stream that needs no model."""

from tokenwire.server.probe.routes import routes

__all__ = ["routes"]
