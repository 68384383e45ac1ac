"""
Serve a checkpoint to the public LIBERO and RoboTwin clients, over their websocket protocol.

The clients connect unchanged. There is no authentication: every machine that reaches the port can
use the model. Bind it to an address that only trusted machines can reach.
"""

import argparse
import asyncio
from concurrent.futures import ThreadPoolExecutor
import logging
import os
import signal
import socket
import sys
from typing import Any, TYPE_CHECKING

from lingbot_va_ros.cli.common.engine_options import (
    add_engine_arguments,
    chosen_policy,
    load_chosen_engine,
)
from lingbot_va_ros.cli.common.failure import CommandFailed, one_line
from lingbot_va_ros.cli.common.sampling_options import number
from lingbot_va_ros.serving.websocket_server import WebsocketServer

if TYPE_CHECKING:  # torch takes seconds to import, during which signals must be handled
    from lingbot_va_ros.serving.policy_server import PolicyServer

PORT = 29056  # as in the public launch scripts
END_SECONDS = 3.0  # for clients and the running forward pass to finish

_log = logging.getLogger('lingbot_va.serve')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the server."""
    add_engine_arguments(parser, checkpoint_required=True)
    parser.add_argument(
        '--host', default='127.0.0.1', metavar='ADDRESS',
        help='address to listen on (default: %(default)s, this machine only)')
    parser.add_argument(
        '--port', type=number(int, 0, 65535), default=PORT, metavar='N',
        help='port to listen on; 0: any free port (default: %(default)s)')
    parser.add_argument(
        '--max-message-mib', type=number(float, 0.001, 2047), default=64.0, metavar='MIB',
        help='maximum size of a request (default: %(default)g)')
    parser.add_argument(
        '--idle-timeout', type=number(float, 0), default=60.0, metavar='S',
        help='seconds without a request after which another client may begin an episode '
             '(default: %(default)g)')


def run(arguments: argparse.Namespace) -> int:
    """
    Serve until SIGINT or SIGTERM, both of which give exit code 0.

    :raises CommandFailed: the checkpoint or the address cannot be used.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format='%(asctime)s %(levelname)s %(message)s')
    return asyncio.run(_serve(arguments))


async def _serve(arguments: argparse.Namespace) -> int:
    asked_to_end = asyncio.Event()
    loop = asyncio.get_running_loop()
    for which in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(which, asked_to_end.set)
    bound = _bind(arguments.host, arguments.port)  # before loading, which takes minutes
    thread = ThreadPoolExecutor(1, 'inference')
    loading = loop.run_in_executor(thread, _load, arguments)
    ending = loop.create_task(asked_to_end.wait())
    either: set[asyncio.Future[Any]] = {loading, ending}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        _leave('ended while loading')
    policy = loading.result()
    server = WebsocketServer(
        policy.answer, thread, policy.metadata(), round(arguments.max_message_mib * 2 ** 20),
        arguments.idle_timeout)
    try:
        listening = await server.listen(bound)
    except OSError as error:
        raise CommandFailed(f'cannot listen on {arguments.host}: {error.strerror}') from None
    host, port = bound.getsockname()[:2]
    print(f'listening on ws://{f"[{host}]" if ":" in host else host}:{port}', flush=True)
    await ending
    listening.close()
    try:
        await asyncio.wait_for(listening.wait_closed(), END_SECONDS)
    except asyncio.TimeoutError:
        _leave('ended during a forward pass')
    thread.shutdown()
    _log.info('ended')
    return 0


def _bind(host: str, port: int) -> socket.socket:
    """Bind the port without listening yet: until then clients are refused, and retry."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise CommandFailed(f'cannot listen on {host} port {port}: {error.strerror}') from None
    return bound


def _load(arguments: argparse.Namespace) -> 'PolicyServer':
    """
    Load the checkpoint, on the thread that will run it.

    :raises CommandFailed: checkpoint, policy file or options are invalid.
    """
    from lingbot_va_ros.serving.policy_server import PolicyServer

    try:
        policy = chosen_policy(arguments, _log.info, _log.warning)
        engine = load_chosen_engine(arguments, policy, _log.info)
    except ValueError as error:
        raise CommandFailed(one_line(error)) from None
    if not policy.trained:
        _log.warning('this checkpoint is UNTRAINED: its actions mean nothing')
    return PolicyServer(engine)


def _leave(message: str) -> None:
    """End the process without waiting for the inference thread."""
    _log.info(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
