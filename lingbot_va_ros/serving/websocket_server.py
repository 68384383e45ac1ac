"""
The websocket server of `lingbot_va serve`: connections, ownership of the episode, limits.

One thread runs the model; the event loop serves the connections. An episode belongs to the
connection that began it. Requests of other connections are rejected until that one closes or is
idle for some time. The answer to an invalid request is a text frame, which the public clients
raise as an error; the connection stays open.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
import http
import logging
import socket
import time
from typing import Any, cast

from websockets.asyncio.server import Request as HttpRequest
from websockets.asyncio.server import Response, serve, Server, ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.protocol import State

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.interrupt import Interrupt, InterruptFlag
from lingbot_va_ros.serving.frame_clipper import FrameClipper
from lingbot_va_ros.serving.msgpack_numpy import pack, unpack, WireError
from lingbot_va_ros.serving.protocol import read_request, Request, RequestError, RESET

HEALTH_PATH = '/healthz'
MAX_CONNECTIONS = 8
STALL_SECONDS = 30.0  # the longest pause within a message
CLOSE_SECONDS = 1.0  # timeout of the answer to a close frame
LONGEST_ERROR = 600  # characters
# A lost peer is detected after about idle + interval * count seconds.
KEEPALIVE = {'TCP_KEEPIDLE': 15, 'TCP_KEEPINTVL': 5, 'TCP_KEEPCNT': 3}

_log = logging.getLogger('lingbot_va.serve')


@dataclass
class Episode:
    """The connection that owns the episode, and when its last request ended (monotonic, s)."""

    owner: ServerConnection
    computing: bool = False
    spoke: float = 0.0


class WebsocketServer:
    """
    Serves one model to the clients of the public protocol.

    :param answer: executes a request and returns the reply; called on `thread` only. Receives a
        function to call between the steps of a prediction.
    :param thread: an executor of one thread.
    :param metadata: sent to every client that connects.
    :param max_message: largest request, bytes.
    :param idle_seconds: idle time after which another connection may begin an episode.
    """

    def __init__(
        self, answer: Callable[[Request, Interrupt], dict[str, Any]],
        thread: ThreadPoolExecutor, metadata: dict[str, Any], max_message: int,
        idle_seconds: float, stall_seconds: float = STALL_SECONDS,
    ):
        self._answer = answer
        self._thread = thread
        self._metadata = pack(metadata)
        self._max_message = max_message
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._server: Server | None = None
        self._episode: Episode | None = None

    async def listen(self, bound: socket.socket) -> Server:
        """Accept connections on a bound socket until the returned server is closed."""
        self._server = await serve(
            self._converse, sock=bound, compression=None, process_request=self._admit,
            # Browsers send the origin of the page; connections from web pages are rejected.
            origins=[None],
            # The public clients disable pings, because they do not answer while they simulate.
            ping_interval=None, close_timeout=CLOSE_SECONDS, max_queue=1,
            max_size=(None, self._max_message + 1), logger=_quiet_logger(),
            create_connection=cast(type[ServerConnection], self._connection))
        return self._server

    def _connection(self, protocol, server, **settings) -> 'ClippedConnection':
        return ClippedConnection(
            protocol, server, self._max_message, self._stall_seconds, **settings)

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        if request.path == HEALTH_PATH:
            return connection.respond(http.HTTPStatus.OK, 'OK\n')
        if self._server is not None and len(self._server.connections) >= MAX_CONNECTIONS:
            return connection.respond(
                http.HTTPStatus.SERVICE_UNAVAILABLE, f'{MAX_CONNECTIONS} connections are open\n')
        return None

    async def _converse(self, connection: ServerConnection) -> None:
        name = _peer(connection)
        _log.info('%s connected', name)
        seconds: float | None = None
        try:
            await connection.send(self._metadata)
            while True:
                message = await self._receive(connection)
                began = time.monotonic()
                await connection.send(await self._reply(connection, message, seconds))
                seconds = time.monotonic() - began
        except ConnectionClosed as closed:
            _log.info('%s closed its connection (%s)', name, closed)
        finally:
            self._end_episode_of(connection)

    def _end_episode_of(self, connection: ServerConnection) -> None:
        if self._episode is not None and self._episode.owner is connection:
            self._episode = None

    async def _receive(self, connection: ServerConnection) -> bytearray | None:
        """Return the next message, or None if it is too long."""
        message, whole = bytearray(), True
        async for part in connection.recv_streaming(decode=False):
            whole = whole and len(message) + len(part) <= self._max_message
            if whole:
                message += part
            else:
                message.clear()
        return message if whole else None

    async def _reply(
        self, connection: ServerConnection, message: bytearray | None,
        previous_seconds: float | None,
    ) -> bytes | str:
        """Return the reply to a message: bytes, or a line of text with the error."""
        try:
            if message is None:
                raise RequestError(
                    f'message of more than {self._max_message / 2 ** 20:g} MiB '
                    '(--max-message-mib)')
            request = read_request(unpack(bytes(message)))
            episode = self._take_turn(connection, request)
            began = time.monotonic()
            reply = await self._compute(episode, request)
            timing = {'infer_ms': (time.monotonic() - began) * 1000}
            if previous_seconds is not None:
                timing['prev_total_ms'] = previous_seconds * 1000
            return pack({**reply, 'server_timing': timing})
        except (WireError, RequestError) as error:
            return self._refuse(connection, str(error))
        except PredictionAborted:
            return self._refuse(connection, 'the prediction was aborted')
        except Exception as error:
            _log.exception('%s: the request failed', _peer(connection))
            reason = (str(error).splitlines() or [''])[0]
            return self._refuse(
                connection, f'the server failed: {type(error).__name__}: {reason}; the episode '
                'is over, send reset')

    def _refuse(self, connection: ServerConnection, reason: str) -> str:
        line = ' '.join(reason.split())
        line = line if len(line) <= LONGEST_ERROR else f'{line[:LONGEST_ERROR - 1]}…'
        _log.warning('%s: %s', _peer(connection), line)
        return line

    def _take_turn(self, connection: ServerConnection, request: Request) -> Episode:
        """
        Return the connection's episode; a reset begins one.

        :raises RequestError: the episode belongs to another connection.
        """
        present = self._episode
        if present is not None and present.owner is connection:
            return present
        if request.kind != RESET:
            raise RequestError(
                f'{request.kind} without an episode of this connection: send reset first')
        if present is not None:
            silent = time.monotonic() - present.spoke
            if present.computing or silent < self._idle_seconds:
                raise RequestError(
                    f'the model is busy with an episode of {_peer(present.owner)}: reset is '
                    'possible when that connection has closed or been idle for '
                    f'{self._idle_seconds:g} s')
            _log.warning(
                '%s takes over from %s, silent for %.0f s', _peer(connection),
                _peer(present.owner), silent)
        _log.info('%s begins an episode: %r', _peer(connection), request.prompt)
        self._episode = Episode(connection)
        return self._episode

    async def _compute(self, episode: Episode, request: Request) -> dict[str, Any]:
        abandoned = InterruptFlag()
        computed = asyncio.get_running_loop().run_in_executor(
            self._thread, self._answer, request, abandoned)
        closed = asyncio.ensure_future(episode.owner.wait_closed())
        episode.computing = True
        try:
            either: set[asyncio.Future[Any]] = {computed, closed}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not computed.done():  # the client has disconnected
                abandoned.set()
                self._end_episode_of(episode.owner)
            return await computed
        finally:
            closed.cancel()
            episode.computing = False
            episode.spoke = time.monotonic()


class ClippedConnection(ServerConnection):
    """A connection that survives messages of any size, and closes if one stalls."""

    def __init__(self, protocol, server, limit: int, stall_seconds: float, **settings):
        super().__init__(protocol, server, **settings)
        self._clipper = FrameClipper(limit)
        self._stall_seconds = stall_seconds
        self._stall: asyncio.TimerHandle | None = None
        self._farewell: asyncio.Task | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enable TCP keepalive, which detects a lost peer."""
        plug = transport.get_extra_info('socket')
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            if hasattr(socket, option):  # not available on every system
                plug.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Truncate frames after the opening handshake."""
        if self.state is State.OPEN:
            data = self._clipper.clip(data)
            self._watch()
        if data:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the stall check."""
        if self._stall is not None:
            self._stall.cancel()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._clipper.inside:
            self._stall = self.loop.call_later(self._stall_seconds, self._on_stall)

    def _on_stall(self) -> None:
        if not self.transport.is_reading():  # reading is paused while a request runs
            self._watch()
            return
        self._farewell = self.loop.create_task(self._end_stalled())

    async def _end_stalled(self) -> None:
        line = f'an incomplete message, and no data for {self._stall_seconds:g} s'
        _log.warning('%s: %s', _peer(self), line)
        with suppress(ConnectionClosed):
            await self.send(line)
            await self.close(CloseCode.PROTOCOL_ERROR, line)


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return f'{address[0]}:{address[1]}' if address else 'a client'


def _quiet_logger() -> logging.Logger:
    """Return the library's logger, disabled: it logs a traceback for every failed handshake."""
    logger = logging.getLogger('websockets.server')
    logger.setLevel(logging.CRITICAL)
    return logger
