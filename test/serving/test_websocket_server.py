"""Connections that stall within a message are closed after a timeout, with an error."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import socket
import threading

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from lingbot_va_ros.serving.msgpack_numpy import pack, unpack
from lingbot_va_ros.serving.websocket_server import MAX_CONNECTIONS, WebsocketServer


def with_server(client, answer=lambda request, interrupt: {}, stall_seconds=0.3):
    """Run `client(url)` against a server that answers by a function instead of a model."""
    async def both():
        with ThreadPoolExecutor(1) as thread:
            bound = socket.socket()
            bound.bind(('127.0.0.1', 0))
            server = WebsocketServer(answer, thread, {}, 10000, 60.0, stall_seconds)
            listening = await server.listen(bound)
            try:
                url = f'ws://127.0.0.1:{bound.getsockname()[1]}'
                await asyncio.wait_for(client(url), 20)
            finally:
                listening.close()
                await listening.wait_closed()
    asyncio.run(both())


def test_a_message_that_stops_half_way_ends_its_connection():
    async def client(url):
        async with connect(url, proxy=None) as connection:
            await connection.recv()
            whole = Frame(Opcode.BINARY, bytes(100)).serialize(mask=True)
            connection.transport.write(whole[:50])
            assert 'an incomplete message' in await connection.recv()
            with pytest.raises(ConnectionClosed, match='an incomplete message'):
                await connection.recv()
    with_server(client)


def test_a_slow_message_is_waited_for():
    async def client(url):
        async with connect(url, proxy=None) as connection:
            await connection.recv()
            whole = Frame(Opcode.BINARY, pack({'reset': True})).serialize(mask=True)
            for at in range(len(whole)):
                connection.transport.write(whole[at:at + 1])
                await asyncio.sleep(0.05)
            assert 'server_timing' in unpack(await connection.recv())
    with_server(client)


def test_a_message_behind_a_running_request_is_no_half_one():
    release = threading.Event()

    def answer(_request, _interrupt):
        assert release.wait(10)
        return {}

    async def client(url):
        async with connect(url, proxy=None) as connection:
            await connection.recv()
            await connection.send(pack({'reset': True}))
            for _ in range(3):  # more than the server reads ahead
                await connection.send(pack({'reset': True, 'prompt': 'a' * 9000}))
            await asyncio.sleep(1.0)
            release.set()
            for _ in range(4):
                assert 'server_timing' in unpack(await connection.recv())
    with_server(client, answer)


def test_a_fault_is_told_and_the_connection_goes_on():
    faults = [RuntimeError('out of\nmemory')]

    def answer(_request, _interrupt):
        if faults:
            raise faults.pop()
        return {}

    async def client(url):
        async with connect(url, proxy=None) as connection:
            await connection.recv()
            await connection.send(pack({'reset': True}))
            told = await connection.recv()
            assert 'RuntimeError: out of; the episode is over, send reset' in told
            await connection.send(pack({'reset': True}))
            assert 'server_timing' in unpack(await connection.recv())
    with_server(client, answer)


def test_connections_have_a_number():
    async def client(url):
        open_ones = [await connect(url, proxy=None) for _ in range(MAX_CONNECTIONS)]
        with pytest.raises(InvalidStatus, match='503'):
            await connect(url, proxy=None)
        await open_ones.pop().close()
        await asyncio.sleep(0.2)
        open_ones.append(await connect(url, proxy=None))
        for connection in open_ones:
            await connection.close()
    with_server(client)
