"""The statistics of a row, from the outcomes of its episodes."""

from rich.console import Console

from lingbot_va_ros.cli.eval.plot import write_plot
from lingbot_va_ros.cli.eval.rows import (
    Condition,
    conditions_of,
    EpisodeOutcome,
    histogram_words,
    row_of,
    table_of,
)


def outcome(seed, strokes, **changes):
    return EpisodeOutcome(**{
        'seed': seed, 'success': strokes == 6, 'done': True, 'counts': {'strokes': strokes},
        'ended_by': 'done', 'chunks': 30, 'seconds': 20.0 + seed, 'max_seam_step': 0.01,
        'max_seam_acceleration': 2.0, 'max_step': 0.02, 'max_acceleration': 4.0,
        'starved_ticks': 3, 'inference_seconds': (0.1, 0.2), **changes})


CONDITION = Condition('wipe_plate', 'async', 'full', 0.5)


def row(outcomes, **changes):
    return {**row_of(CONDITION, outcomes, 0.8, True), **changes}


def test_a_row_says_what_was_measured():
    values = row([outcome(0, 6), outcome(1, 6, max_seam_step=0.03), outcome(2, 5)])
    assert (values['task'], values['schedule'], values['memory'], values['latency_chunks']) == (
        'wipe_plate', 'async', 'full', 0.5)
    assert (values['episodes'], values['successes'], values['starved_ticks']) == (3, 2, 9)
    assert values['counts'] == {'strokes': {'5': 1, '6': 2}}
    assert (values['episode_seconds'], values['chunk_seconds']) == (21.0, 0.8)
    assert (values['max_seam_step'], values['max_step']) == (0.03, 0.02)
    assert values['success_low'] < 2 / 3 < values['success_high']


def test_p95_is_taken_over_the_chunks_of_all_episodes():
    values = row([outcome(0, 6, inference_seconds=(0.1,) * 96), outcome(
        1, 6, inference_seconds=(9.0,) * 4)])
    assert values['inference_p95'] == 0.1


def test_nothing_measured_is_no_number():
    values = row([outcome(0, 0, inference_seconds=())])
    assert values['inference_p95'] is None
    assert '–' in table_text([values])


def table_text(rows):
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table_of(rows))
    return capture.get()


def test_the_table_shows_interval_and_histogram():
    text = table_text([row([outcome(0, 6), outcome(1, 4)])])
    assert '1/2' in text and '1.3% to 98.7%' in text
    assert 'strokes 4: 1×, 6: 1×' in text


def test_counts_are_told_in_the_order_of_their_numbers():
    assert histogram_words({'strokes': {'4': 1, '10': 2}}) == 'strokes 4: 1×, 10: 2×'
    values = row([outcome(0, 10), outcome(1, 4)])
    assert list(values['counts']['strokes']) == ['4', '10']


def test_conditions_are_all_combinations():
    conditions = conditions_of(['a', 'b'], ['sync'], ['full', 'last_chunk'], [0.0, 0.9])
    assert len(set(conditions)) == 8
    assert conditions[0] == Condition('a', 'sync', 'full', 0.0)
    assert conditions[-1] == Condition('b', 'sync', 'last_chunk', 0.9)


def test_the_plot_is_a_picture_also_of_unknown_figures(tmp_path):
    rows = [row([outcome(0, 6)]), row([outcome(0, 5, inference_seconds=())], latency_chunks=1.0)]
    write_plot(tmp_path / 'rows.png', rows, 'tiny')
    assert (tmp_path / 'rows.png').read_bytes().startswith(b'\x89PNG')
