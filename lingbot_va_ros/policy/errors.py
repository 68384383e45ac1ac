"""Exceptions that abort or reject a prediction without being a fault."""


class PredictionAborted(Exception):
    """A prediction was aborted between two denoising steps; the memory is unchanged."""


class NotExecutable(Exception):
    """The robot cannot execute a predicted chunk; the message is the reason in one line."""
