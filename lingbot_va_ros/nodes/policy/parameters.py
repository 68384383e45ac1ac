"""The parameters of policy_node, and the sampling settings that follow from them."""

from dataclasses import replace
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

from lingbot_va_ros.nodes.images.conversion import AUTO, CONVERTERS
from lingbot_va_ros.nodes.images.transports import TRANSPORTS
from lingbot_va_ros.nodes.parameters import declare_parameters, NodeParameter, WrongParameter
from lingbot_va_ros.policy.runtime.schedules import SCHEDULES
from lingbot_va_ros.specs.engine_choices import (
    ATTENTIONS,
    DEVICES,
    DTYPES,
    ENCODER_PLACES,
    WEIGHTS,
)
from lingbot_va_ros.specs.policy_file import PolicyFile, Sampling
from lingbot_va_ros.specs.ranges import MOST_MEMORY_CHUNKS

EXECUTED_SOURCES = ('topic', 'plan')
TAKEOVER_MEMORIES = ('keep', 'forget')
ABLATIONS = ('none', 'last_chunk')

PARAMETERS = (
    NodeParameter(
        'video_steps', 0, "Denoising steps of the video; 0 takes the policy file's.", 0, 1000),
    NodeParameter(
        'video_exec_steps', 0,
        "Forward passes of the video loop to run (-1: all); 0 takes the policy file's.", -1, 1001),
    NodeParameter(
        'action_steps', 0, "Denoising steps of the actions; 0 takes the policy file's.", 0, 1000),
    NodeParameter(
        'imagine_steps', 3,
        'Denoising steps of imagined frames; used by the schedule async only.', 1, 1000),
    NodeParameter(
        'guidance_scale', -1.0,
        "Guidance scale of the video; negative takes the policy file's.", -1.0, 100.0),
    NodeParameter(
        'action_guidance_scale', -1.0,
        "Guidance scale of the actions; negative takes the policy file's.", -1.0, 100.0),
    NodeParameter(
        'memory_frames', 0,
        "Maximum latent frames in the memory; 0 takes the policy file's. A multiple of "
        'its frames per chunk.', 0, 1000000),
    NodeParameter(
        'control_rate', 50.0,
        'Publishing rate of the plan in Hz; not the speed of the robot.', 1.0, 1000.0),
    NodeParameter(
        'max_camera_age', 0.5, 'Seconds after which a camera counts as lost.', 0.001, 60.0),
    NodeParameter(
        'max_camera_skew', 0.1,
        'Largest difference between an image and the time for which it is used, in s.', 0.0, 10.0),
    NodeParameter(
        'max_bad_images', 0.3,
        "Share of a camera's last 30 images that may be bad before the policy holds; 1: any.",
        0.0, 1.0),
    NodeParameter(
        'max_joint_age', 0.5, "Seconds after which a joint's state counts as lost.", 0.001, 60.0),
    NodeParameter('seed', 0, 'Random seed of the initial noise.', 0, 2 ** 31 - 1),
    NodeParameter(
        'max_snapshots', 4, 'Maximum snapshots of save_memory in host memory.', 0, 1000),
    NodeParameter(
        'realtime_priority', 40,
        'Priority 1 … 98 under SCHED_FIFO, where the system grants it, of the thread that '
        "publishes the plan; what receives has 10 less. Below command_mux's. 0: the "
        'ordinary scheduler.', 0, 98, read_only=True),
    NodeParameter(
        'padded_latency', 0.0,
        'Minimum duration of a prediction in seconds; for measurements.', 0.0, 3600.0),
    NodeParameter('checkpoint', '', "Checkpoint folder, in the public layout or LeRobot's."),
    NodeParameter(
        'wan_pretrained_path', '',
        "Folder with vae/, text_encoder/ and tokenizer/; empty takes the checkpoint's "
        "own, or the folder in LeRobot's config.json. Nothing is downloaded."),
    NodeParameter(
        'adapter_base', '',
        'Checkpoint that a LoRA adapter was trained on; empty takes what the adapter '
        'says.'),
    NodeParameter(
        'policy_config', '',
        "Policy file: a path, the name of a shipped file, or empty for the checkpoint's "
        "own policy.yaml or LeRobot's config.json."),
    NodeParameter(
        'embodiment', 'sim_left', 'Embodiment file: a path or the name of a shipped file.'),
    NodeParameter('instruction', '', 'The task in words; with an empty one the policy waits.'),
    NodeParameter('device', 'auto', 'Device that runs the model.', choices=DEVICES),
    NodeParameter('dtype', 'auto', 'auto is bfloat16 on cuda and float32 on cpu.', choices=DTYPES),
    NodeParameter(
        'weights', 'full',
        'Weights of the network: full: in dtype; the others: quantized to 8 bits.',
        choices=WEIGHTS),
    NodeParameter(
        'attention', 'auto',
        'Attention kernel; auto is flash-attn if it is installed and supported.',
        choices=ATTENTIONS),
    NodeParameter(
        'text_encoder', 'release',
        'Place of the text encoder after a new instruction; release frees it.',
        choices=ENCODER_PLACES),
    NodeParameter(
        'schedule', 'sync',
        'Order of prediction and execution; '
         'see docs/explanation/time_and_schedules.md.',
        choices=tuple(SCHEDULES)),
    NodeParameter(
        'memory_ablation', 'none',
        'last_chunk: keep the last chunk only in memory; for measurements.', choices=ABLATIONS),
    NodeParameter(
        'executed_source', 'topic',
        'Source of the executed commands; plan: the plan is used in their place.',
        choices=EXECUTED_SOURCES),
    NodeParameter(
        'takeover_memory', 'keep',
        'Keep motion in TELEOP in the memory (keep), or begin a new epoch with a takeover '
        '(forget); read when a takeover begins.', choices=TAKEOVER_MEMORIES),
    NodeParameter('publish_predicted_video', False, 'Publish the imagined frames.'),
    NodeParameter(
        'image_converter', AUTO,
        'Converter of raw images; own: this package; cv_bridge: all by cv_bridge; auto: '
        'cv_bridge converts what this package does not know, where it works.',
        choices=CONVERTERS),
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
CHANGEABLE = frozenset((
    'instruction', 'video_steps', 'video_exec_steps', 'action_steps', 'imagine_steps',
    'guidance_scale', 'action_guidance_scale', 'max_camera_age', 'max_camera_skew',
    'max_bad_images', 'max_joint_age', 'padded_latency', 'publish_predicted_video',
    'takeover_memory'))
SAMPLING = frozenset((
    'video_steps', 'video_exec_steps', 'action_steps', 'imagine_steps', 'guidance_scale',
    'action_guidance_scale'))


def declare_camera(node: Node, name: str, topic: str, transport: str) -> tuple[str, str]:
    """
    Declare a camera's parameters once and return (topic, transport).

    :raises WrongParameter: an override has a wrong type or value.
    """
    rows = (
        NodeParameter(f'cameras.{name}.topic', topic, f'Image topic of camera {name}.'),
        NodeParameter(f'cameras.{name}.transport', transport,
                      f'Transport of the images of camera {name}.', choices=tuple(TRANSPORTS)))
    declare_parameters(node, [row for row in rows if not node.has_parameter(row.name)])
    values = [node.get_parameter(row.name).value for row in rows]
    for row, value in zip(rows, values, strict=True):
        fault = row.fault(value)
        if fault:
            raise WrongParameter(fault)
    return values[0], values[1]


def refusals(parameters: list[Parameter], configured: bool) -> list[str]:
    """Return a line for every parameter that cannot be changed to its new value now."""
    lines = []
    for parameter in parameters:
        row = _BY_NAME.get(parameter.name)
        fault = row.fault(parameter.value) if row is not None else ''
        if fault:
            lines.append(fault)
        known = row is not None or parameter.name.startswith('cameras.')
        if known and configured and parameter.name not in CHANGEABLE:
            lines.append(f'{parameter.name} can only be changed while unconfigured')
    return lines


def sampling(policy: PolicyFile, values: dict[str, Any]) -> tuple[Sampling, Sampling]:
    """
    Return video and action sampling: the policy file's, changed by parameters.

    :raises ValueError: more forward passes than the video loop has.
    """
    video, action = policy.video, policy.action
    if values['video_steps']:
        video = replace(video, steps=values['video_steps'])
    if values['video_exec_steps']:
        video = replace(video, exec_steps=values['video_exec_steps'])
    if values['guidance_scale'] >= 0:
        video = replace(video, guidance=values['guidance_scale'])
    if values['action_steps']:
        action = replace(action, steps=values['action_steps'])
    if values['action_guidance_scale'] >= 0:
        action = replace(action, guidance=values['action_guidance_scale'])
    if video.exec_steps > video.steps + 1:
        raise ValueError(
            f'video_exec_steps is {video.exec_steps}; with {video.steps} video steps there are '
            f'{video.steps + 1} forward passes')
    return video, action


def check_guidance(
    configured: tuple[Sampling, Sampling], wanted: tuple[Sampling, Sampling],
) -> None:
    """
    Check that a memory made for some sampling of video and action can take another.

    :raises ValueError: guidance above 1 where the memory was made without a second half.
    """
    if max(each.guidance for each in wanted) > 1 >= max(each.guidance for each in configured):
        raise ValueError(
            'guidance above 1 needs a memory with two halves: set it before configure')


def memory_chunks(policy: PolicyFile, memory_frames: int) -> int:
    """
    Return the number of chunks in the memory.

    :raises ValueError: the frames are not whole chunks, or too many.
    """
    if not memory_frames:
        return policy.memory_chunks
    if memory_frames % policy.frames_per_chunk:
        raise ValueError(
            f"memory_frames is {memory_frames}, not a multiple of the policy's "
            f'{policy.frames_per_chunk} frames per chunk')
    chunks = memory_frames // policy.frames_per_chunk
    if chunks > MOST_MEMORY_CHUNKS:
        raise ValueError(
            f'memory_frames is {memory_frames}, {chunks} chunks; expected at most '
            f'{MOST_MEMORY_CHUNKS} chunks')
    return chunks
