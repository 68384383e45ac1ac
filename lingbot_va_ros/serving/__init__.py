"""Serves an engine over the public websocket protocol: requests, messages, connections."""
