"""
Check checkpoint, policy file and embodiment, and whether they match, before a robot moves.

Only the headers of the weights are read. Prints all errors and warnings at once, and the device
memory that the checkpoint needs. The exit code is 0 only if there is no error. With --live the
running graph of this ROS domain is checked too: topics, types, QoS, rates, stamps, images, joints,
controllers. Nothing is published and nothing moves.
"""

import argparse
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any

import numpy as np

from lingbot_va_ros.atomic_files import write_text
from lingbot_va_ros.cli.check.collision import collision_findings
from lingbot_va_ros.cli.check.finding import Finding
from lingbot_va_ros.cli.common.engine_options import add_checkpoint_argument
from lingbot_va_ros.cli.common.failure import CommandFailed
from lingbot_va_ros.robot.action_map import make_action_map
from lingbot_va_ros.specs.action_names import compare_names
from lingbot_va_ros.specs.embodiment import Embodiment, EmbodimentError, load_embodiment
from lingbot_va_ros.specs.lerobot_policy import lerobot_findings
from lingbot_va_ros.specs.policy_file import (
    find_policy_file,
    load_policy_file,
    PolicyFile,
    PolicyFileError,
)

DTYPE_BYTES = {'bfloat16': 2, 'float16': 2, 'float32': 4}
GIGABYTE = 10 ** 9
PARTS = {
    'transformer': 'transformer',
    'kv_memory': 'KV cache',
    'text_states': 'text keys and values',
    'vae_encoder': 'VAE encoder',
    'vae_decoder': 'VAE decoder',
    'text_encoder': 'text encoder',
}
# An arm with fewer cannot take every pose near a given one.
JOINTS_OF_EVERY_POSE = 6
# Default of the nodes.
LIVE_EMBODIMENT = 'sim_left'
TOTALS = {
    'acting': 'acting (the first four)',
    'imagining': 'with imagined video',
    'with_text_encoder_on_device': 'with text_encoder: device',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the check."""
    add_checkpoint_argument(parser, 'checkpoint folder')
    parser.add_argument(
        '--policy', default='', metavar='NAME',
        help="policy file: a path or the name of a shipped file (default: the checkpoint's own)")
    parser.add_argument(
        '--embodiment', default='', metavar='NAME',
        help='embodiment file: a path or the name of a shipped file')
    parser.add_argument(
        '--dtype', choices=tuple(DTYPE_BYTES), default='bfloat16',
        help='data type of the weights, for the memory estimate (default: %(default)s)')
    parser.add_argument(
        '--wan-pretrained-path', default='', metavar='FOLDER',
        help='folder with vae/, text_encoder/ and tokenizer/, if the checkpoint has none')
    parser.add_argument(
        '--adapter-base', default='', metavar='FOLDER',
        help='base checkpoint of a LoRA adapter')
    parser.add_argument(
        '--live', action='store_true',
        help='check the running graph too, with this policy and embodiment '
             f'(default: {LIVE_EMBODIMENT})')
    parser.add_argument(
        '--namespace', default='', metavar='NAME',
        help='with --live: namespace of policy_node and command_mux')
    parser.add_argument(
        '--seconds', type=_seconds, default=5.0, metavar='S',
        help='with --live: measuring time of rates and stamps, s (default: %(default)g)')
    parser.add_argument(
        '--json', type=Path, metavar='FILE', help='write the findings to this file')


def _seconds(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 0.5 <= value <= 600:
        raise argparse.ArgumentTypeError(f'{word!r} is not a time from 0.5 to 600 s')
    return value


def run(arguments: argparse.Namespace) -> int:
    """
    Print the findings and return 0, or 1 where one is an error.

    :raises CommandFailed: there is nothing to check, or the JSON file cannot be written.
    """
    if arguments.live and not arguments.embodiment:
        arguments.embodiment = LIVE_EMBODIMENT
    if not (arguments.checkpoint or arguments.policy or arguments.embodiment):
        raise CommandFailed(
            'nothing to check; expected --checkpoint, --policy, --embodiment or --live',
            exit_code=2)
    findings: list[Finding] = []
    policy = _check_policy(arguments, findings)
    budget = None
    if arguments.checkpoint:
        budget = _check_checkpoint(arguments, policy, findings)
    embodiment = _check_embodiment(arguments.embodiment, findings)
    bridge = _check_bridge(findings) if arguments.embodiment else None
    if policy is not None and embodiment is not None:
        findings.extend(compare(policy, embodiment))
    if arguments.live and embodiment is not None:
        from lingbot_va_ros.cli.check.graph_probe import graph_findings  # only this part needs ROS

        findings.extend(graph_findings(
            policy, embodiment, arguments.namespace, arguments.seconds))
    ok = not any(finding.severity == 'error' for finding in findings)
    for finding in findings:
        print(f'{finding.severity}: {finding.where}: {finding.message}')
    if budget is not None:
        _print_budget(budget)
    if bridge is not None:
        print(f'cv_bridge {bridge["message"]}')
    errors = sum(finding.severity == 'error' for finding in findings)
    print(f'{"ok" if ok else "not ok"}: {errors} errors, {len(findings) - errors} warnings')
    if arguments.json:
        try:
            write_text(arguments.json, json.dumps({
                'ok': ok, 'findings': [asdict(finding) for finding in findings],
                'budget': budget, 'cv_bridge': bridge}, indent=2) + '\n')
        except OSError as error:
            raise CommandFailed(
                f'{arguments.json} cannot be written: {error.strerror}') from None
    return 0 if ok else 1


def _check_policy(
    arguments: argparse.Namespace, findings: list[Finding],
) -> PolicyFile | None:
    checkpoint = arguments.checkpoint and arguments.checkpoint.expanduser()
    if not arguments.policy and not (checkpoint and checkpoint.is_dir()):
        return None  # not requested, or the missing folder is reported separately
    where = arguments.policy or str(checkpoint)
    try:
        path = find_policy_file(arguments.policy, checkpoint or Path(), print)
        where = str(path)
        policy = load_policy_file(path)
    except PolicyFileError as error:
        findings.extend(_errors(where, error))
        return None
    if not policy.trained:
        findings.append(Finding(
            'warning', where, 'the checkpoint is untrained: its actions mean nothing'))
    return policy


def _check_checkpoint(
    arguments: argparse.Namespace, policy: PolicyFile | None, findings: list[Finding],
) -> dict[str, Any] | None:
    # Slow to import.
    from lingbot_va_ros.model.compatibility import policy_mismatches
    from lingbot_va_ros.policy.inference.inspection import inspect_checkpoint
    from lingbot_va_ros.policy.inference.memory_budget import CARD_BYTES, memory_budget

    checkpoint = arguments.checkpoint.expanduser()
    found = inspect_checkpoint(
        checkpoint, arguments.wan_pretrained_path, arguments.adapter_base)
    findings.extend(Finding('error', fault.where, fault.message) for fault in found.faults)
    findings.extend(_lerobot_remarks(checkpoint))
    if policy is None or found.config is None:
        return None
    mismatches = policy_mismatches(policy, found.config)
    findings.extend(
        Finding('error', f'policy {policy.name} on {checkpoint}', line) for line in mismatches)
    if mismatches or set(found.numbers) != set(PARTS) - {'kv_memory', 'text_states'}:
        return None
    budget = memory_budget(
        found.numbers, found.config, policy, DTYPE_BYTES[arguments.dtype])
    return {
        'policy': policy.name, 'dtype': arguments.dtype, 'guidance_halves': budget.rows,
        'action_stream': found.config.action_hidden_dim,
        'bytes': {name: budget.parts[name] for name in PARTS}, 'totals': budget.totals,
        'card_bytes': CARD_BYTES, 'left_on_card': budget.left_on_card}


def _lerobot_remarks(checkpoint: Path) -> list[Finding]:
    """Return the warnings about a LeRobot folder; its errors are reported with the policy."""
    return [Finding(*entry) for entry in lerobot_findings(checkpoint) if entry[0] == 'warning']


def _check_embodiment(name: str, findings: list[Finding]) -> Embodiment | None:
    if not name:
        return None
    try:
        embodiment = load_embodiment(name)
    except EmbodimentError as error:
        findings.extend(_errors(name, error))
        return None
    if embodiment.workspace is not None:
        findings.extend(_check_workspace(name, embodiment))
    findings.extend(collision_findings(name, embodiment))
    return embodiment


def _check_bridge(findings: list[Finding]) -> dict[str, Any] | None:
    """Return whether cv_bridge works; None without ROS. It is needed for rare encodings only."""
    try:
        from lingbot_va_ros.nodes.images.bridge import probe_bridge
    except ImportError:
        return None
    report = probe_bridge()
    if report.installed and not report.works:
        findings.append(Finding(
            'warning', 'cv_bridge', f'{report.message}; policy_node converts images without it'))
    return {'works': report.works, 'message': report.message}


def _check_workspace(name: str, embodiment: Embodiment) -> list[Finding]:
    from lingbot_va_ros.mux.workspace import WorkspaceWatch  # slow to import: pinocchio

    try:
        outside = WorkspaceWatch(embodiment).outside(embodiment.home)
    except ValueError as error:
        return [Finding('error', name, f'workspace: {error}')]
    return [Finding('warning', name, f'home: go_home is refused: it has {outside}')
            ] if outside else []


def compare(policy: PolicyFile, embodiment: Embodiment) -> list[Finding]:
    """Return the mismatches between a policy and an embodiment."""
    where = f'policy {policy.name} on embodiment {embodiment.name}'
    found = [
        Finding('warning', where,
                f'the embodiment has no camera {name}: images are expected on '
                f'camera/{name}/image_raw')
        for name in policy.cameras if name not in embodiment.cameras]
    try:
        actions = make_action_map(embodiment, policy)
    except ValueError as error:
        return [*found, Finding('error', where, str(error))]
    remark = compare_names(
        policy.action_names, policy.used_channels, embodiment, policy.action_frame).remark
    if remark:
        found.append(Finding('warning', where, remark))
    if policy.action_frame != 'joints':
        found += [
            Finding('warning', where,
                    f'the {arm.side} arm has {len(arm.joints)} joints and cannot take every pose: '
                    'nearly all actions will be out of reach; give it pose_weights')
            for arm in embodiment.arms
            if len(arm.joints) < JOINTS_OF_EVERY_POSE and arm.pose_weights is None]
        return found  # the joints of a pose depend on the joint positions before it
    used = list(policy.used_channels)
    ends = actions.to_joints(
        np.stack((policy.q01[used], policy.q99[used])), embodiment.home)
    limits = embodiment.limits
    for joint, low, high, lower, upper in zip(
            embodiment.joints, ends.min(0), ends.max(0), limits.lower, limits.upper):
        if low < lower - 1e-6 or high > upper + 1e-6:
            found.append(Finding(
                'warning', where,
                f'the quantiles of {joint} reach from {low:.3g} to {high:.3g}, its limits from '
                f'{lower:.3g} to {upper:.3g}: positions outside the limits are clipped'))
    return found


def _errors(where: str, error: Exception) -> list[Finding]:
    """Return a finding for each line, without the path that the line may begin with."""
    return [Finding('error', where, line.removeprefix(f'{where}: '))
            for line in str(error).splitlines()]


def _network_line(action_stream: int | None) -> str:
    if action_stream is None:
        return 'network: one backbone for video and actions'
    return f'network: mixture of transformers, action stream {action_stream} wide'


def _print_budget(budget: dict[str, Any]) -> None:
    halves = 'with guidance' if budget['guidance_halves'] == 2 else 'no guidance'
    print(f'\ndevice memory, computed from the files: {budget["dtype"]}, policy '
          f'{budget["policy"]}, {halves}\n{_network_line(budget["action_stream"])}\n'
          f'  {"":26}{"bytes":>16}{"GB":>9}')
    for name, label in PARTS.items():
        print(f'  {label:26}{budget["bytes"][name]:>16,}{budget["bytes"][name] / GIGABYTE:9.2f}')
    print(f'  {"together":51}  left on a 24 GB card')
    for name, label in TOTALS.items():
        total, left = budget['totals'][name], budget['left_on_card'][name]
        print(f'  {label:26}{total:>16,}{total / GIGABYTE:9.2f}{left / GIGABYTE:9.2f}'
              f'{"  does not fit" if left < 0 else ""}')
    print(f'  A 24 GB card has {budget["card_bytes"]:,} bytes. Activations and the CUDA context '
          'come on top.\n')
