"""The error of everything that is wrong with a checkpoint folder."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, key or shape at fault."""
