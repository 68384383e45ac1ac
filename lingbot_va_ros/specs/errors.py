"""The error of a checkpoint folder that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file, key or shape at fault."""
