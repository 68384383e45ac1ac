"""Calls of services that wait for the answer."""

import time

from support.waiting import DEADLINE, wait_for

REPEAT_SECONDS = 2.0


def ask_until_answered(client, request, deadline=DEADLINE):
    """
    Return the answer to a request, which is sent again where none comes: it may be served twice.

    What is asked before both ends have discovered each other is lost, and so is what reaches a
    server that was killed and is still discovered for a while.

    :raises AssertionError: no answer comes within `deadline` seconds.
    """
    assert client.wait_for_service(deadline), f'no service {client.srv_name}'
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        future = client.call_async(request)
        again = time.monotonic() + REPEAT_SECONDS
        while not future.done() and time.monotonic() < again:
            time.sleep(0.005)
        if future.done():
            return future.result()
        client.remove_pending_request(future)
    raise AssertionError(f'no answer of {client.srv_name}')


class Services:
    """
    Calls services from a node that spins in a thread of its own.

    The client of a service is kept: a server drops its answer to a client that it has not
    discovered yet, which happens to new clients on a busy machine.
    """

    def __init__(self, node):
        self._node = node
        self._clients = {}

    def client(self, kind, name):
        """Return the client of a service that is there."""
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, name)
        client = self._clients[name]
        assert client.wait_for_service(DEADLINE), f'no service {name}'
        return client

    def call(self, kind, name, request, deadline=DEADLINE):
        """
        Return the answer to a request.

        :param name: relative to the node's namespace, or beginning with a slash.
        :raises AssertionError: no answer comes within `deadline` seconds.
        """
        future = self.client(kind, name).call_async(request)
        wait_for(future.done, f'an answer of {name}', deadline)
        return future.result()

    def close(self):
        """Leave the graph with all clients."""
        for client in self._clients.values():
            self._node.destroy_client(client)
        self._clients.clear()
