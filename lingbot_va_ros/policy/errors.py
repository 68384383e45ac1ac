"""What ends a prediction without a fault."""


class PredictionAborted(Exception):
    """A prediction was given up between two denoising steps; the memory is as it was before."""
