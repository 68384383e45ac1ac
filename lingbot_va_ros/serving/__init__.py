"""The public websocket protocol on an engine: requests, messages, connections."""
