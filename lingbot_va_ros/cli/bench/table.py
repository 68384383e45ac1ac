"""Print the results of `lingbot_va bench` as tables, and compare two runs."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

WIDTH = 140  # characters without a terminal
# Compared columns of the engine's rows.
COMPARED = ('video_forward_ms', 'action_forward_ms', 'chunk_ms', 'encode_ms', 'peer_chunk_ms')
KEY = ('setting', 'device', 'dtype', 'memory_tokens', 'video_steps', 'action_steps', 'weights')
BEFORE = {'weights': 'full'}  # defaults of columns that older files lack


def read_results(path: Path) -> dict:
    """
    Read an earlier `--json` file.

    :raises ValueError: the file cannot be read, or has no results.
    """
    try:
        results = json.loads(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise ValueError(f'--compare {path} cannot be read: {error.strerror}') from None
    except ValueError as error:
        raise ValueError(f'--compare {path} is not JSON: {error}') from None
    rows = results.get('engine') if isinstance(results, dict) else None
    if not isinstance(rows, list) or not all(
            isinstance(row, dict) and {*KEY[:4], 'chunk_ms'} <= row.keys() for row in rows):
        raise ValueError(f'--compare {path} has no results of lingbot_va bench')
    return results


def compare(results: dict, earlier: dict) -> list[dict]:
    """
    Return a row for each row in both runs: earlier time / present time, above 1 is faster.

    Rows match if all columns of KEY are equal; a column that an old file lacks matches.
    """
    rows = []
    for row in results['engine']:
        for old in earlier['engine']:
            if all(old.get(name, BEFORE.get(name, row.get(name))) == row.get(name)
                   for name in KEY):
                rows.append({
                    **{name: row.get(name) for name in KEY},
                    **{name: old[name] / row[name] for name in COMPARED
                       if old.get(name) and row.get(name)}})
                break
    return rows


def show(results: dict, compared: list[dict] | None = None) -> None:
    """Print all results as tables."""
    console = _console()
    machine = results['machine']
    console.print(
        f'{machine["processor"]}, {machine["threads"]} of {machine["cores"]} threads, load '
        f'{machine["load_average_before"][0]:.1f} before and '
        f'{machine["load_average_after"][0]:.1f} after; {machine["device"]}')
    if results['engine']:
        console.print(_engine(results['engine']))
        console.print(_attention(results['engine']))
        console.print(_products(results['engine']))
        console.print(_parts(results['engine']))
    if results['ros'] is not None:
        console.print(_ros(results['ros']))
    if results['images'] is not None:
        console.print(_images(results['images']))
    if results['conversions'] is not None:
        console.print(_conversions(results['conversions']))
    if compared is not None:
        console.print(_ratios(compared))


def show_controllers(rows: list[dict]) -> None:
    """Print what controllers make of the mux's commands."""
    table = Table(
        title='commands of controllers for a plan of 0.5 rad/s and a sine (virtual time)')
    for name in ('controller', 'desired', 'Hz', 'mux', 'delay, ms', 'speed, rad/s', 'rad/s²',
                 'sine', 'limit', 'stop', 'rejected', 'mode'):
        table.add_column(name, justify='left' if name in ('controller', 'mode') else 'right')
    for row in rows:
        delay, jitter = (1000 * row[name] for name in ('delay', 'jitter'))
        table.add_row(
            row['controller'], 'yes' if row['from_desired'] else 'no', str(row['rate']),
            str(row['mux_rate']),
            f'{delay:g} … {delay + jitter:g}',
            f'{row["speed_min"]:.3f} … {row["speed_max"]:.3f}', f'{row["acceleration_max"]:.1f}',
            f'{row["sine_error"]:.2%}', f'{row["limit_share"]:.2f}',
            f'{row["stop_limit_share"]:.2f}', str(row['rejected']), row['mode'])
    _console().print(table)


def show_collisions(rows: list[dict]) -> None:
    """Print what the collision watch costs the mux."""
    table = Table(title=f'collisions of {rows[0]["embodiment"]}, {rows[0]["pairs"]} pairs: '
                        'milliseconds a tick')
    for name in ('motion', 'without', 'with', 'p99', 'cost', 'of a core at 100 Hz', 'kept apart'):
        table.add_column(name, justify='left' if name == 'motion' else 'right')
    for row in rows:
        table.add_row(
            row['motion'], f'{row["tick_ms_without"]:.2f}', f'{row["tick_ms"]:.2f}',
            f'{row["tick_ms_p99"]:.2f}', f'{row["collision_ms"]:.2f}',
            f'{row["core_share"]:.1%}', f'{row["blocked_ticks"]} ticks')
    _console().print(table)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _engine(rows: list[dict]) -> Table:
    table = Table(title='engine, milliseconds (medians)')
    for name in ('setting', 'memory', 'video', 'action', 'chunk', 'floor', 'peer chunk', 'ratio',
                 '… of cpu time', 'images', 'peak GB'):
        table.add_column(
            name, justify='left' if name == 'setting' else 'right', no_wrap=name == 'setting')
    for row in rows:
        share = row['roofline_share']
        table.add_row(
            f'{row["setting"]} {row["video_steps"]}/{row["action_steps"]} {_precision(row)}',
            str(row['memory_tokens']), _number(row['video_forward_ms']),
            _number(row['action_forward_ms']), _number(row['chunk_ms']),
            '{:.1f} ({:.0f} %, {:.0f}–{:.0f})'.format(
                row['floor_ms'], *(100 * each for each in (share, *row['roofline_share_range']))),
            _number(row['peer_chunk_ms']),
            _ratio(row['peer_chunk_ms'], row['chunk_ms']),
            _ratio(row['peer_chunk_processor_ms'], row['chunk_processor_ms']),
            _number(row['encode_ms']), f'{row["peak_bytes"] / 1e9:.2f}')
    return table


def _attention(rows: list[dict]) -> Table:
    table = Table(title='attention of one layer to a full memory, milliseconds (medians)')
    for name in ('setting', 'kernel', 'video', 'action'):
        table.add_column(name, justify='left' if name in ('setting', 'kernel') else 'right')
    for row in rows[::2]:  # the same for an empty and a full memory
        for kernel, times in row['attention_ms'].items():
            table.add_row(f'{row["setting"]} {row["dtype"]}', kernel,
                          *('' if times[kind] is None else f'{times[kind]:.3f}'
                            for kind in ('video', 'action')))
    return table


def _products(rows: list[dict]) -> Table:
    table = Table(title='products of a block, GFLOP/s (medians)')
    for name in ('setting', 'path', 'video', 'action'):
        table.add_column(name, justify='left' if name in ('setting', 'path') else 'right')
    for row in rows[::2]:
        for path in ('torch', 'here'):
            table.add_row(f'{row["setting"]} {row["dtype"]}', path, *(
                f'{row["linear_gflops"][kind][path]:.0f}' for kind in ('video', 'action')))
    return table


def _parts(rows: list[dict]) -> Table:
    table = Table(title='memory of each part, GB, and the peak')
    for name in ('setting', *rows[0]['part_bytes'], 'peak'):
        table.add_column(name, justify='left' if name == 'setting' else 'right')
    for row in rows[::2]:
        table.add_row(f'{row["setting"]} {_precision(row)}', *(
            f'{size / 1e9:.2f}' for size in (*row['part_bytes'].values(), row['peak_bytes'])))
    return table


def _precision(row: dict) -> str:
    return row['dtype'] if row['weights'] == 'full' else f'{row["dtype"]} {row["weights"]}'


def _ros(ros: dict) -> Table:
    table = Table(title='ROS path')
    table.add_column('measurement')
    table.add_column('result', justify='right')
    jitter = ros['publish_jitter_ms']
    for name, figure in (
            ('three cameras of 640 x 480 at 30 Hz into the node, share of a core',
             ros['image_cpu_share']),
            ('an image message to Python (rclpy), ms', ros['image_to_python_ms']),
            ('camera stamp to chunk published, beyond the engine, p50, ms',
             ros['camera_to_chunk_extra_ms_p50']),
            ('… p95, ms', ros['camera_to_chunk_extra_ms_p95']),
            ('jitter of the plan while the engine computes, p50, ms', jitter['p50']),
            ('… p99, ms', jitter['p99']), ('… largest, ms', jitter['max'])):
        table.add_row(name, 'unknown' if figure is None else f'{figure:.3f}')
    return table


def _images(rows: list[dict]) -> Table:
    table = Table(title='three cameras of 640 x 480 at 30 Hz into a process')
    for name in ('images', 'executor', 'Fast DDS', 'share of a core', 'of the cameras',
                 'images/s', 'age p50, ms', 'p99'):
        table.add_column(
            name, justify='left' if name in ('images', 'executor', 'Fast DDS') else 'right')
    for row in rows:
        table.add_row(
            f'{row["transport"]}, {row["handling"]}', row['executor'],
            'profile' if row['profile'] else 'default', f'{row["cpu_share"]:.3f}',
            f'{row["cameras_cpu_share"]:.3f}', f'{row["images_per_second"]:.1f}',
            _number(row['age_ms_p50']), _number(row['age_ms_p99']))
    return table


def _conversions(rows: list[dict]) -> Table:
    table = Table(title='conversion of an image of 640 x 480 to RGB, ms of processor time')
    for name in ('encoding', 'ms', 'by indexing'):
        table.add_column(name, justify='left' if name == 'encoding' else 'right')
    for row in rows:
        table.add_row(
            row['encoding'], f'{row["ms"]:.3f}',
            '' if row['indexing_ms'] is None else f'{row["indexing_ms"]:.3f}')
    return table


def _ratios(rows: list[dict]) -> Table:
    table = Table(title='speed-up since the earlier file (above 1: faster now)')
    for name in ('setting', 'memory', *COMPARED):
        table.add_column(name, justify='left' if name == 'setting' else 'right')
    for row in rows:
        table.add_row(
            f'{row["setting"]} {_precision(row)}', str(row['memory_tokens']),
            *(f'{row[name]:.2f}' if name in row else '' for name in COMPARED))
    return table


def _ratio(theirs: float | None, ours: float | None) -> str:
    return f'{theirs / ours:.2f}' if theirs and ours else ''


def _number(value: Any) -> str:
    return '' if value is None else f'{value:.1f}'
