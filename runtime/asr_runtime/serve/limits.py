"""Limits of one request, and of all requests together."""

from __future__ import annotations

from dataclasses import dataclass

from asr_runtime.errors import ConfigurationError

__all__ = ["Limits", "RefusedError"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of the server.

    Attributes:
        workers: requests that are screened at the same time; each has its own decoding process and model.
        waiting: requests that wait for a worker; the next one is answered 429.
        request_bytes: longest request body.
        upload_bytes: of all bodies in memory together; a request beyond it is answered 429.
        files: files of one request.
        open_files: of all requests together; a request beyond it is answered 429.
        pixels: largest image.
        memory: bytes that a decoding process may take.
        seconds: of screening for one request; what is not done by then is reported as an error.
        patience: seconds that a client may take to send its request line and headers, to send the next part of a
            body, or to read the next part of an answer.
        bytes_per_second: slowest upload, after `patience` seconds.
    """

    workers: int
    waiting: int = 64
    request_bytes: int = 256 << 20
    upload_bytes: int = 1 << 30
    files: int = 100
    open_files: int = 1000
    pixels: int = 1 << 26
    memory: int = 1 << 30
    seconds: float = 120.0
    patience: float = 10.0
    bytes_per_second: int = 16 << 10

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} {getattr(self, name)}: expected a number above 0")
        if self.request_bytes > self.upload_bytes:
            raise ConfigurationError(
                f"a request may have {self.request_bytes} bytes and all uploads together {self.upload_bytes}; "
                "expected at least as many for all"
            )


class RefusedError(Exception):
    """A request that is answered with an error, because it is beyond a limit or not valid.

    Attributes:
        status: of HTTP.
        retry_after: seconds after which the client may try again; None: it need not.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
