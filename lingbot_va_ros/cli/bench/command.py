"""
Measure the engine, a peer beside it, the ROS path, or controllers, on this machine.

The engine runs networks with random weights, created in memory; no checkpoint is needed. Times are
medians. With --peer, a checkout of the public implementation is measured alternately with the
engine, with the same sizes, weights, noise and KV cache. A ratio is given only if the results of
both agree.

With --controllers, only what simulated joint_trajectory_controllers make of the mux's commands is
measured, in virtual time; with --collisions, only what it costs the mux to keep bodies apart.
"""

import argparse
import functools
import json
import os
from pathlib import Path
import platform
import sys

from lingbot_va_ros.atomic_files import atomic_files
from lingbot_va_ros.cli.bench.settings import DESCRIPTIONS, load_setting, NAMES, Setting
from lingbot_va_ros.cli.bench.table import (
    compare,
    read_results,
    show,
    show_collisions,
    show_controllers,
)
from lingbot_va_ros.cli.common import interrupts
from lingbot_va_ros.cli.common.engine_options import add_device_arguments
from lingbot_va_ros.cli.common.sampling_options import number
from lingbot_va_ros.sim.controllers.settings import CONTROLLERS

FULL = 'full'  # --weights: not quantized


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark."""
    parser.add_argument(
        '--setting', action='append', choices=NAMES, metavar='NAME',
        help='network and sampling of the engine; repeatable: ' + '; '.join(
            f'{name}: {line}' for name, line in DESCRIPTIONS.items())
        + ' (default: mid-cpu, on cuda robotwin)')
    add_device_arguments(parser)
    parser.add_argument(
        '--no-graphs', action='store_true',
        help='on cuda: run denoising steps without CUDA graphs')
    parser.add_argument(
        '--threads', type=number(int, 1, 1024), metavar='N',
        help='CPU threads of the engine and the peer (default: all cores but one, as in '
             'policy_node)')
    parser.add_argument(
        '--video-steps', type=number(int, 1), metavar='N',
        help='denoising steps, instead of those of the setting')
    parser.add_argument(
        '--action-steps', type=number(int, 1), metavar='N',
        help='denoising steps, instead of those of the setting')
    parser.add_argument(
        '--repeats', type=number(int, 1), default=3, metavar='N',
        help='repetitions of each measurement, after one warm-up (default: %(default)s)')
    parser.add_argument(
        '--seed', type=number(int, 0, 10 ** 6), default=0, metavar='N',
        help='random seed of weights and noise (default: %(default)s)')
    parser.add_argument(
        '--peer', type=Path, metavar='PATH',
        help='checkout of the public implementation, measured in the same run')
    parser.add_argument('--no-engine', action='store_true', help='measure the ROS path only')
    parser.add_argument(
        '--images', action='store_true',
        help='also measure the CPU cost of images by transport, executor and Fast DDS profile, '
             'and of their conversions')
    parser.add_argument('--no-ros', action='store_true', help='skip the ROS path')
    parser.add_argument(
        '--controllers', nargs='*', choices=CONTROLLERS, metavar='NAME',
        help='measure only what these controllers make of a plan of 0.5 rad/s, in virtual time: '
             f'{", ".join(CONTROLLERS)} (default: all)')
    parser.add_argument(
        '--controller-delay', type=number(float, 0.0, 0.2), metavar='S',
        help="with --controllers: the mux's parameter controller_delay, s (default: its own)")
    parser.add_argument(
        '--collisions', nargs='?', const='sim_dual', metavar='NAME',
        help='measure only what the collision watch costs the mux with this embodiment, in '
             'virtual time (default: %(const)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the results to this file')
    parser.add_argument(
        '--compare', type=Path, metavar='FILE',
        help='earlier --json file: print the speed-up since then')


def run(arguments: argparse.Namespace) -> int:
    """
    Measure and print the results.

    :raises ValueError: options contradict each other, or a file cannot be used.
    :raises CommandFailed: a process of the ROS path fails.
    """
    if arguments.controllers is not None:
        return _run_controllers(arguments)
    if arguments.collisions is not None:
        return _run_collisions(arguments)
    if arguments.no_engine and arguments.no_ros and not arguments.images:
        raise ValueError('--no-engine and --no-ros leave nothing to measure')
    if arguments.no_engine and arguments.peer is not None:
        raise ValueError('--peer is measured together with the engine; remove --no-engine')
    if arguments.peer is not None and arguments.weights != FULL:
        raise ValueError(f'--peer has no quantized weights; remove --weights {arguments.weights}')
    earlier = None if arguments.compare is None else read_results(arguments.compare)
    with atomic_files([] if arguments.json is None else [arguments.json]) as files:
        results = _measure(arguments)
        ratios = None if earlier is None else compare(results, earlier)
        if ratios is not None:
            results['compared'] = {'file': str(arguments.compare), 'engine': ratios}
        for file in files:
            file.write_text(json.dumps(results, indent=2) + '\n')
    show(results, ratios)
    if ratios == []:
        print(f'{arguments.compare} has no row with the same setting, device, dtype and steps')
    return 0


def _run_controllers(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        raise ValueError('--compare is for the engine; remove --controllers')
    from lingbot_va_ros.cli.bench.controllers import all_conditions, measure_controllers

    with atomic_files([] if arguments.json is None else [arguments.json]) as files:
        rows = measure_controllers(
            all_conditions(arguments.controllers or CONTROLLERS), arguments.controller_delay, _say)
        for file in files:
            file.write_text(json.dumps({'controllers': rows}, indent=2) + '\n')
    show_controllers(rows)
    return 0


def _run_collisions(arguments: argparse.Namespace) -> int:
    if arguments.compare is not None:
        raise ValueError('--compare is for the engine; remove --collisions')
    from lingbot_va_ros.cli.bench.collisions import measure_collisions

    with atomic_files([] if arguments.json is None else [arguments.json]) as files:
        rows = measure_collisions(arguments.collisions, _say)
        for file in files:
            file.write_text(json.dumps({'collisions': rows}, indent=2) + '\n')
    show_collisions(rows)
    return 0


def _measure(arguments: argparse.Namespace) -> dict:
    before = os.getloadavg()
    machine = {
        'processor': _processor(), 'cores': os.cpu_count(), 'system': platform.platform(),
        'python': platform.python_version(), 'load_average_before': before}
    engine: list[dict] = []
    if not arguments.no_engine:
        engine = _measure_engine(arguments, machine)
    ros = None
    if not arguments.no_ros:
        from lingbot_va_ros.cli.bench.ros_path import measure_ros

        ros = measure_ros(_say)
    images = conversions = None
    if arguments.images:
        from lingbot_va_ros.cli.bench.conversions import measure_conversions
        from lingbot_va_ros.cli.bench.images import measure_images

        conversions = measure_conversions(_say)
        images = measure_images(_say)
    machine.setdefault('threads', os.cpu_count())
    machine.setdefault('device', 'cpu')
    machine['load_average_after'] = os.getloadavg()
    return {'machine': machine, 'engine': engine, 'ros': ros, 'images': images,
            'conversions': conversions}


def _measure_engine(arguments: argparse.Namespace, machine: dict) -> list[dict]:
    from lingbot_va_ros.cli.bench.peer import find_code, load_server_module

    code = None if arguments.peer is None else find_code(arguments.peer)
    import torch  # takes seconds; mistakes in the options come first

    from lingbot_va_ros.cli.bench.engine import add_roofline, measure_setting
    from lingbot_va_ros.cli.bench.roofline import ItemBytes, MachineRates, measure_rates
    from lingbot_va_ros.cli.bench.session import check_memory
    from lingbot_va_ros.model.quantization import check_kind
    from lingbot_va_ros.policy.inference.device import (
        choose_device,
        choose_dtype,
        reserve_one_core,
    )

    device = choose_device(arguments.device)
    dtype = choose_dtype(arguments.dtype, device)
    check_kind(arguments.weights, device, dtype)
    settings = _settings(arguments, device.type)
    for setting in settings:
        check_memory(setting, device, dtype.itemsize, 1 if code is None else 2)
    modules, stood_in = (None, []) if code is None else load_server_module(code)
    before = torch.get_num_threads()
    try:
        reserve_one_core()
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        _say('measuring copies and matrix products')
        measured = [measure_rates(device, dtype, arguments.weights)]

        def rate():
            # Measured after every chunk: other load must not make the machine seem slow.
            measured.append(measure_rates(device, dtype, arguments.weights))
            return measured[-1]

        machine.update({
            'threads': torch.get_num_threads(), 'torch': torch.__version__,
            'device': torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu'})
        if code is not None:
            machine['peer'] = {'folder': str(code), 'stand_ins': stood_in}
        found = []
        for setting in settings:
            found.append(measure_setting(
                setting, device, dtype, arguments.repeats, arguments.seed, modules,
                lambda line: _say(f'{setting.name}: {line}'), rate, arguments.weights,
                not arguments.no_graphs))
        rates = functools.reduce(MachineRates.best, measured)
        machine.update({
            'matrix_operations_per_second': rates.operations,
            'copy_bytes_per_second': rates.bytes})
        for setting, rows in zip(settings, found):
            add_roofline(
                rows, setting,
                ItemBytes(dtype.itemsize if arguments.weights == FULL else 1, dtype.itemsize),
                rates, torch.get_num_threads())
        return [row for rows in found for row in rows]
    finally:
        torch.set_num_threads(before)


def _settings(arguments: argparse.Namespace, device: str) -> list[Setting]:
    names = arguments.setting or ['robotwin' if device == 'cuda' else 'mid-cpu']
    return [load_setting(name, arguments.video_steps, arguments.action_steps) for name in names]


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor()
    found: str | None = next(
        (line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), None)
    return found or platform.processor()


def _say(line: str) -> None:
    interrupts.check()
    print(line, file=sys.stderr, flush=True)
