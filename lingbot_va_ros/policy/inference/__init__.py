"""The engine: a loaded checkpoint with the session of one episode."""
