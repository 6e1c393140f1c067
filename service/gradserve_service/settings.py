"""What an operator may choose. The environment is read here and nowhere else.

Every setting is a flag of `gradserve serve` and a variable: `--store` is `$GRADSERVE_STORE`. A flag wins over the
variable, the variable over the default.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from gradserve.specs import expected_of
from gradserve_service.limits import Limits
from gradserve_service.store.records import Durability

__all__ = ["Settings", "SettingsError", "read_settings"]

ENVIRONMENT_PREFIX = "GRADSERVE_"


class SettingsError(Exception):
    """A choice that the server will not start with. The text says which, and the cure."""


class Settings(BaseSettings):
    """The choices of one server, from flags and from `$GRADSERVE_…`."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="ignore", frozen=True)

    host: Annotated[str, Field(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 8970
    uds: Annotated[Path | None, Field(description="Listen on this UNIX socket instead of host and port.")] = None
    store: Annotated[
        str,
        Field(min_length=1, description="sqlite:///path/to/file.db, redis://host:port/0 or unix:///path/redis.sock."),
    ] = "sqlite:///gradserve-data/gradserve.db"
    durability: Annotated[
        Durability, Field(description="Least level that the store has to give: memory, journal or fsync.")
    ] = "journal"
    retain: Annotated[
        Literal["snapshots", "all"], Field(description="What of the journal is kept: back to the snapshots, or all.")
    ] = "snapshots"
    token: Annotated[SecretStr | None, Field(description="Bearer token that every /v1 request must carry.")] = None
    token_sha256: Annotated[
        str | None,
        Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the token, instead of the token (gradserve token)."),
    ] = None
    insecure: Annotated[bool, Field(description="Allow another address than loopback without a token.")] = False
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least severe level to log.")
    ] = "info"
    log_format: Annotated[Literal["pretty", "json"], Field(description="For eyes or for machines.")] = "pretty"
    drain_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest time for finishing and snapshots after SIGTERM.")
    ] = 30.0

    @property
    def limits(self) -> Limits:
        """The bounds of this server."""
        return Limits()

    def token_digest(self) -> bytes | None:
        """SHA-256 of the token: what is kept for comparing. None when the server asks for no token."""
        if self.token_sha256 is not None:
            return bytes.fromhex(self.token_sha256)
        if self.token is None:
            return None
        return hashlib.sha256(self.token.get_secret_value().encode()).digest()

    def check(self) -> None:
        """Raises `SettingsError` for choices that contradict each other or that expose the server."""
        if self.token is not None and not self.token.get_secret_value().strip():
            raise SettingsError(
                "the token is empty: set $GRADSERVE_TOKEN to a random text (python3 -c 'import secrets; "
                "print(secrets.token_urlsafe(32))'), or leave it out"
            )
        if self.token is not None and self.token_sha256 is not None:
            raise SettingsError("there are a token and a token_sha256: set one of $GRADSERVE_TOKEN(_SHA256)")
        if self.uds is None and self.token_digest() is None and not self.insecure and not is_loopback(self.host):
            raise SettingsError(
                f"without a token the server listens on loopback only, and host is {self.host!r}: set "
                "$GRADSERVE_TOKEN, or use --host 127.0.0.1, or say --insecure (anyone who reaches the port may then "
                "read and change every run)"
            )


def is_loopback(host: str) -> bool:
    """Does only this machine reach a server that listens on `host`? A name other than localhost is not trusted."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def read_settings(**given: Any) -> Settings:
    """The settings of a server: `given` flags (None = not given) over the environment over the defaults.

    Raises `SettingsError` naming each value that cannot be; never the value of the token.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        settings = Settings(**chosen)
    except ValidationError as exc:
        raise SettingsError("\n".join(_complaint(error, chosen) for error in exc.errors())) from None
    settings.check()
    return settings


def _complaint(error: Any, chosen: dict[str, Any]) -> str:
    name = str(error["loc"][0]) if error["loc"] else "settings"
    place = f"--{name.replace('_', '-')}" if name in chosen else f"${ENVIRONMENT_PREFIX}{name.upper()}"
    came = "" if name == "token" else f", came {error['input']!r}"
    return f"{place}: expected {expected_of(error)}{came}"
