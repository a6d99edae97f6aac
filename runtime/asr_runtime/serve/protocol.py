"""HTTP connections that end when their client stalls."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["patient_protocol"]

_CONNECTIONS = 512  # open at a time; beyond it the oldest one without a request is cut


def patient_protocol(patience: float) -> type[asyncio.Protocol]:
    """Return uvicorn's HTTP protocol with the time limits that it lacks.

    Args:
        patience: seconds in which a client sends a request line with its headers, takes the next part of an answer, or
            ends a body after the answer.
    """
    waiting: dict[PatientProtocol, None] = {}  # connections without a request, in the order they came

    class PatientProtocol(H11Protocol):
        """One connection. A client that stalls is cut off; the body of a request has limits in `uploads`."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._silence: asyncio.TimerHandle | None = None
            self._backlog: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > _CONNECTIONS and waiting:
                next(iter(waiting)).transport.abort()
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._watch()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._backlog = self.loop.call_later(patience, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._backlog is not None:
                self._backlog.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            waiting.pop(self, None)
            for timer in (self._silence, self._backlog):
                if timer is not None:
                    timer.cancel()

        def _watch(self) -> None:
            """Give a connection without a request `patience` seconds, however much it sends in between."""
            is_waiting = self.cycle is None or self.cycle.response_complete
            if is_waiting and self._silence is None:
                waiting[self] = None
                self._silence = self.loop.call_later(patience, self.transport.abort)
            elif not is_waiting and self._silence is not None:
                waiting.pop(self, None)
                self._silence.cancel()
                self._silence = None

    return PatientProtocol
