"""A real server for the rows about a running service."""

from sdk.conftest import client, name, no_launcher, server

__all__ = ["client", "name", "no_launcher", "server"]
