"""The files and parameters of a configured policy, and the engine created from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TYPE_CHECKING

import numpy as np

from lingbot_va_ros.motion.plan import MotionLimits
from lingbot_va_ros.motion.timeline import Timeline
from lingbot_va_ros.nodes.images.conversion import choose_converter, ImageConverter
from lingbot_va_ros.nodes.policy import parameters as policy_parameters
from lingbot_va_ros.policy.runtime.camera_buffer import CameraBuffer
from lingbot_va_ros.policy.runtime.executed_log import ExecutedLog
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.policy.runtime.task import normalize_instruction
from lingbot_va_ros.robot.action_map import ActionMap, make_action_map
from lingbot_va_ros.robot.joint_state_buffer import JointStateBuffer
from lingbot_va_ros.robot.tool_path import ArmToolPath, tool_paths
from lingbot_va_ros.specs.action_names import compare_names
from lingbot_va_ros.specs.embodiment import Embodiment, load_embodiment
from lingbot_va_ros.specs.policy_file import (
    find_policy_file,
    load_policy_file,
    PolicyFile,
    Sampling,
)

if TYPE_CHECKING:  # torch is imported when a checkpoint is loaded, not when the node starts
    from lingbot_va_ros.policy.inference.engine import Engine

LATEST_CHUNK = 30.0  # seconds after its end during which a chunk can still be committed


@dataclass(frozen=True)
class Configuration:
    """
    One configuration of the node, from configure to cleanup.

    :param values: the node's parameters at configure.
    :param converter: of the images of all cameras.
    :param executed: the log of executed commands; None: the plan is used in its place.
    :param memory_chunks: chunks that the memory holds.
    :param sets_pace: [J] bool, the joints that a plan waits for: all but grippers.
    """

    values: dict[str, Any]
    checkpoint: Path
    policy: PolicyFile
    embodiment: Embodiment
    action_map: ActionMap
    limits: MotionLimits
    video: Sampling
    action: Sampling
    memory_chunks: int
    cameras: CameraBuffer
    converter: ImageConverter
    executed: ExecutedLog | None
    joints: JointStateBuffer
    tool_paths: list[ArmToolPath]
    sets_pace: np.ndarray

    @property
    def policy_title(self) -> str:
        """The policy's name, marked if it is untrained."""
        return self.policy.name + ('' if self.policy.trained else ' (untrained)')


def read_configuration(
    values: dict[str, Any], logger: Any, timeline: Timeline) -> Configuration:
    """
    Read the files that the parameters name, and check their consistency.

    :param values: the node's parameters.
    :param timeline: told how fast its rate may change.
    :param logger: a logger of rclpy for choices and warnings.
    :raises ValueError: a parameter or a file is invalid; the message is for the user.
    :raises OSError: a file cannot be read.
    """
    if not values['checkpoint']:
        raise ValueError('parameter checkpoint is empty; expected a checkpoint folder')
    checkpoint = Path(values['checkpoint']).expanduser()
    if not checkpoint.is_dir():
        raise ValueError(f'checkpoint {checkpoint} is not a folder')
    policy = load_policy_file(
        find_policy_file(values['policy_config'], checkpoint, logger.info), logger.warning)
    embodiment = load_embodiment(values['embodiment'])
    action_map = make_action_map(embodiment, policy)
    remark = compare_names(
        policy.action_names, policy.used_channels, embodiment, policy.action_frame).remark
    if remark:
        logger.warning(remark)
    video, action = policy_parameters.sampling(policy, values)
    chunks = policy_parameters.memory_chunks(policy, values['memory_frames'])
    keep_seconds = (
        policy.frames_per_chunk * policy.actions_per_frame * policy.action_period + 2.0)
    limits = embodiment.limits
    grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
    sets_pace = ~np.isin(embodiment.joints, grippers)
    timeline.configure(limits.velocity[sets_pace], limits.acceleration[sets_pace])
    # The log is long enough to commit a late chunk.
    executed = ExecutedLog(keep_seconds + LATEST_CHUNK, timeline.to_plan) if (
        values['executed_source'] == 'topic') else None
    if not policy.trained:
        logger.warning(f'{checkpoint} is UNTRAINED: random weights, its actions mean nothing')
    if SCHEDULES[values['schedule']].imagines and not policy.forward_dynamics:
        logger.warning(
            f'schedule {values["schedule"]} imagines frames by forward dynamics, for which '
            f'{policy.name} was not trained (forward_dynamics: false); async_ungrounded does not '
            'use it')
    converter, line = choose_converter(values['image_converter'])
    logger.info(line)
    return Configuration(
        values, checkpoint, policy, embodiment, action_map,
        MotionLimits(limits.lower, limits.upper, limits.velocity, limits.acceleration),
        video, action, chunks, CameraBuffer(policy.cameras, keep_seconds), converter,
        executed, JointStateBuffer(
            embodiment.joints, limits, values['max_joint_age'], embodiment.joint_states),
        tool_paths(embodiment), sets_pace)


def make_engine(
    configuration: Configuration, instruction: str, progress: Callable[[str], None],
) -> Engine:
    """
    Load the checkpoint; called by the inference thread, which owns the engine.

    :param instruction: encoded while loading, unless it is empty.
    :param progress: called with one line before each step.
    :raises ValueError: see `load_engine`.
    """
    progress('loading libraries')
    from lingbot_va_ros.policy.inference.device import (
        choose_device,
        choose_dtype,
        reserve_one_core,
    )
    from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
    reserve_one_core()
    values = configuration.values
    device = choose_device(values['device'])
    instruction = normalize_instruction(instruction)
    return load_engine(EngineConfig(
        configuration.checkpoint, configuration.policy, configuration.video,
        configuration.action, configuration.memory_chunks, values['seed'], device,
        choose_dtype(values['dtype'], device), attention=values['attention'],
        text_encoder=values['text_encoder'], instructions=(instruction,) if instruction else (),
        wan_pretrained_path=values['wan_pretrained_path'], adapter_base=values['adapter_base'],
        weights=values['weights'], imagine_steps=values['imagine_steps']), progress)
