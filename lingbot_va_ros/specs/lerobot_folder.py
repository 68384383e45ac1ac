"""
Recognizes LeRobot's checkpoint folders and names their files. No torch here.

`lerobot-train` writes them with `policy.type=lingbot_va` (huggingface/lerobot, policies/pretrained
and policies/lingbot_va): config.json with `"type": "lingbot_va"`, model.safetensors or a LoRA
adapter, policy_postprocessor.json with its state file, train_config.json.
"""

from pathlib import Path

from lingbot_va_ros.specs.checkpoint_config import read_json_object
from lingbot_va_ros.specs.errors import CheckpointError

TYPE = 'lingbot_va'
CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
WEIGHTS_INDEX = f'{WEIGHTS}.index.json'
ADAPTER_CONFIG = 'adapter_config.json'
PREPROCESSOR = 'policy_preprocessor.json'
POSTPROCESSOR = 'policy_postprocessor.json'
TRAIN_CONFIG = 'train_config.json'
PREFIX = 'transformer.'  # of the network's tensors in model.safetensors
INSIDE = 'pretrained_model'  # the subfolder of a lerobot-train checkpoint with these files


def find_lerobot_folder(checkpoint: Path) -> Path | None:
    """
    Return the folder with LeRobot's files: the checkpoint itself or its pretrained_model/.

    :returns: None where the checkpoint is in another layout.
    :raises CheckpointError: LeRobot's files are present, but config.json is missing or unreadable,
        or names another type of policy.
    """
    checkpoint = Path(checkpoint)
    for folder in (checkpoint, checkpoint / INSIDE):
        if _has_lerobot_files(folder):
            kind = read_json_object(folder / CONFIG).get('type')
            if kind != TYPE:
                said = f'type is {kind!r}' if kind is not None else 'type is missing'
                raise CheckpointError(
                    f'{folder / CONFIG}: {said}, expected {TYPE!r} (LeRobot), or a folder with '
                    'transformer/ beside it (the public layout)')
            return folder
    return None


def _has_lerobot_files(folder: Path) -> bool:
    if (folder / 'transformer').is_dir():  # the public layout
        return False
    if any((folder / name).is_file() for name in (WEIGHTS, ADAPTER_CONFIG, POSTPROCESSOR)):
        return True
    try:
        return 'type' in read_json_object(folder / CONFIG)
    except CheckpointError:
        return False
