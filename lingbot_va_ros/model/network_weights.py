"""The files with the tensors of a network, whatever the layout of the checkpoint folder."""

from dataclasses import dataclass
from pathlib import Path

from lingbot_va_ros.model.checkpoint import (
    compare_shapes,
    destinations,
    tensor_shapes,
    unread_shapes,
    weight_files,
)
from lingbot_va_ros.specs.checkpoint_config import read_transformer_config, TransformerConfig


@dataclass(frozen=True)
class NetworkWeights:
    """
    The files that hold a network's tensors.

    :param prefix: precedes every public name of a tensor in the files.
    :param where: the file or folder that errors name.
    """

    config: TransformerConfig
    files: list[Path]
    prefix: str
    where: Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes that the config requires, by public name."""
        table = {name: place.shape for name, place in destinations(self.config).items()}
        return {**table, **unread_shapes(self.config)}

    def check(self) -> None:
        """
        Compare the headers of the files with the config.

        :raises CheckpointError: lists every missing, extra and misshapen tensor.
        """
        compare_shapes(
            tensor_shapes(self.files),
            {f'{self.prefix}{name}': place.shape
             for name, place in destinations(self.config).items()},
            {f'{self.prefix}{name}': shape
             for name, shape in unread_shapes(self.config).items()}, self.where)


def public_weights(checkpoint: Path) -> NetworkWeights:
    """
    Return the weights of a checkpoint folder in the public layout.

    :raises CheckpointError: config.json or a file of weights is missing or unreadable.
    """
    folder = checkpoint / 'transformer'
    config = read_transformer_config(folder / 'config.json')
    return NetworkWeights(config, weight_files(folder), '', folder)
