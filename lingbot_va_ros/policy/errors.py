"""Exceptions that end a prediction, or keep it from being executed, without a fault."""


class PredictionAborted(Exception):
    """A prediction was given up between two denoising steps; the memory is as it was before."""


class NotExecutable(Exception):
    """This robot cannot execute a predicted chunk; the message is one line that says why."""
