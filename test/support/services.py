"""Calls of services that wait for the answer."""

from support.waiting import DEADLINE, wait_for


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
