"""The KV cache: valid tokens after writes, evictions, drops and moves."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
import torch

from lingbot_va_ros.model.kv_cache import SlidingKVCache

CPU = torch.device('cpu')
LAYERS = 2


def make_memory(capacity, spare, rows=1):
    return SlidingKVCache(LAYERS, rows, capacity, spare, 1, 2, CPU, torch.float32)


def write(memory, tokens, marks, provisional=False):
    """Write tokens that carry the numbers `marks` and keep them; return the place."""
    place = memory.reserve(tokens)
    content = torch.tensor(marks, dtype=torch.float32).view(1, tokens, 1, 1).expand(
        memory.cfg_batch, tokens, 1, 2)
    for layer in range(LAYERS):
        place.update(layer, content + 1000 * layer, -content)
    memory.keep(place, provisional)
    return place


def valid_marks(memory):
    """Return the numbers of the valid tokens, oldest first; all layers and values must agree."""
    seen = slice(memory.start, memory.end)
    marks = memory.keys[0, 0, seen, 0, 0]
    for layer in range(LAYERS):
        assert torch.equal(memory.keys[layer, 0, seen, 0, 1], marks + 1000 * layer)
        assert torch.equal(memory.values[layer, 0, seen, 0, 1], -marks)
    return marks.int().tolist()


def test_valid_tokens_are_all_that_were_written_while_there_is_room():
    memory = make_memory(8, 4)
    write(memory, 3, [1, 2, 3])
    write(memory, 2, [4, 5])
    assert valid_marks(memory) == [1, 2, 3, 4, 5]
    assert memory.valid == 5 and memory.provisional == 0


def test_a_write_into_a_full_memory_evicts_whole_groups_oldest_first():
    memory = make_memory(6, 4)
    for first in (1, 3, 5):
        write(memory, 2, [first, first + 1])
    write(memory, 4, [7, 8, 9, 10])
    assert valid_marks(memory) == [5, 6, 7, 8, 9, 10]
    assert [group.tokens for group in memory.spans] == [2, 4]


def test_a_group_is_evicted_only_in_part_where_that_makes_room_enough():
    memory = make_memory(6, 4)
    write(memory, 4, [1, 2, 3, 4])
    write(memory, 3, [5, 6, 7])
    assert valid_marks(memory) == [2, 3, 4, 5, 6, 7]
    assert [group.tokens for group in memory.spans] == [3, 3]


def test_tokens_evicted_for_dropped_tokens_stay_evicted():
    memory = make_memory(4, 4)
    write(memory, 4, [1, 2, 3, 4])
    memory.reserve(3)
    assert valid_marks(memory) == [4]


def test_a_forward_attends_to_the_valid_tokens_and_its_own():
    memory = make_memory(4, 4)
    write(memory, 4, [1, 2, 3, 4])
    place = memory.reserve(2)
    keys, values = place.update(
        0, torch.full((1, 2, 1, 2), 9.0), torch.full((1, 2, 1, 2), 8.0))
    assert keys[0, :, 0, 0].tolist() == [3, 4, 9, 9]
    assert values[0, :, 0, 0].tolist() == [-3, -4, 8, 8]


def test_tokens_that_are_not_kept_are_overwritten_by_the_next_forward():
    memory = make_memory(4, 4)
    write(memory, 1, [1])
    first, second = memory.reserve(2), memory.reserve(2)
    assert first.new == second.new


def test_dropping_predictions_keeps_confirmed_tokens():
    memory = make_memory(8, 4)
    write(memory, 2, [1, 2])
    write(memory, 2, [3, 4], provisional=True)
    write(memory, 1, [5], provisional=True)
    assert memory.provisional == 3
    memory.drop_provisional()
    assert valid_marks(memory) == [1, 2] and memory.provisional == 0


def test_dropping_predictions_brings_nothing_back_that_they_displaced():
    memory = make_memory(4, 4)
    write(memory, 4, [1, 2, 3, 4])
    write(memory, 3, [5, 6, 7], provisional=True)
    memory.drop_provisional()
    assert valid_marks(memory) == [4]


def test_rewind_restores_evicted_tokens_and_drops_written_ones():
    memory = make_memory(4, 4)
    write(memory, 3, [1, 2, 3])
    write(memory, 1, [4], provisional=True)
    memory.make_ready(3)
    mark = memory.mark()
    write(memory, 3, [5, 6, 7], provisional=True)
    memory.rewind(mark)
    assert valid_marks(memory) == [1, 2, 3, 4]
    assert [(group.tokens, group.provisional) for group in memory.spans] == [
        (3, False), (1, True)]


def test_make_ready_moves_the_window_to_the_front_and_keeps_its_content():
    memory = make_memory(4, 2)
    for first in (1, 3, 5):
        write(memory, 2, [first, first + 1])
    assert (memory.start, memory.end) == (2, 6)
    address = memory.keys.data_ptr()
    memory.make_ready(1)
    assert (memory.start, memory.end) == (0, 4)
    assert valid_marks(memory) == [3, 4, 5, 6]
    assert memory.keys.data_ptr() == address


def test_make_ready_moves_nothing_while_there_is_room_behind():
    memory = make_memory(4, 3)
    for first in (1, 3, 5):
        write(memory, 2, [first, first + 1])
    memory.make_ready(1)
    assert memory.start == 2


def test_the_window_does_not_move_while_reserved_slots_are_written():
    memory = make_memory(8, 4)
    for first in range(0, 24, 4):
        write(memory, 4, [first] * 4)
        memory.make_ready(4)
        end = memory.end
        for tokens in (3, 3, 1):
            assert memory.reserve(tokens).new.start == end


def test_make_ready_refuses_more_than_the_buffer_holds():
    memory = make_memory(4, 2)
    write(memory, 4, [1, 2, 3, 4])
    with pytest.raises(ValueError, match='3 tokens do not fit behind 4 in a buffer of 6'):
        memory.make_ready(3)
    assert valid_marks(memory) == [1, 2, 3, 4]


def test_a_forward_larger_than_the_memory_is_refused_and_evicts_nothing():
    memory = make_memory(4, 4)
    write(memory, 2, [1, 2])
    with pytest.raises(ValueError, match='5 tokens do not fit a memory of 4'):
        memory.reserve(5)
    assert valid_marks(memory) == [1, 2]


def test_clear_drops_all_tokens():
    memory = make_memory(4, 4)
    write(memory, 4, [1, 2, 3, 4])
    memory.clear()
    assert memory.valid == 0 and not memory.spans


def test_a_forward_for_one_half_leaves_the_other_half_alone():
    memory = make_memory(4, 4, rows=2)
    place = memory.reserve(1, slice(0, 1))
    place.update(0, torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2))
    assert memory.keys[0, :, 0, 0, 0].tolist() == [1, 0]
    place.for_batch(slice(1, 2)).update(
        0, torch.full((1, 1, 1, 2), 2.0), torch.ones(1, 1, 1, 2))
    assert memory.keys[0, :, 0, 0, 0].tolist() == [1, 2]


def test_a_saved_state_comes_back_at_its_slots_with_its_groups():
    memory = make_memory(4, 4)
    for first in (1, 3, 5):
        write(memory, 2, [first, first + 1])
    state = memory.save()
    write(memory, 3, [7, 8, 9])
    memory.clear()
    memory.restore(state)
    assert valid_marks(memory) == [3, 4, 5, 6]
    assert (memory.start, memory.end) == (2, 6)
    assert [group.tokens for group in memory.spans] == [2, 2]
    write(memory, 1, [7])
    assert valid_marks(memory) == [4, 5, 6, 7]


def test_a_state_comes_back_to_a_buffer_of_another_length_at_its_front():
    memory, other = make_memory(4, 6), make_memory(4, 1)
    for first in (1, 3, 5, 7):
        write(memory, 2, [first, first + 1])
    other.restore(memory.save())
    assert valid_marks(other) == [5, 6, 7, 8] and other.start == 0


def test_a_state_holds_confirmed_tokens_only_or_those_of_a_mark():
    memory = make_memory(4, 4)
    write(memory, 4, [1, 2, 3, 4])
    mark = memory.mark()
    write(memory, 2, [5, 6], provisional=True)
    assert memory.save().keys[0, 0, :, 0, 0].tolist() == [3, 4]
    assert memory.save(mark).keys[0, 0, :, 0, 0].tolist() == [1, 2, 3, 4]
    assert [group.tokens for group in memory.save(mark).spans] == [4]


def test_a_state_does_not_change_with_the_memory_nor_the_memory_with_it():
    memory = make_memory(4, 4)
    write(memory, 2, [1, 2])
    state = memory.save()
    memory.clear()
    write(memory, 2, [8, 9])
    assert state.keys[0, 0, :, 0, 0].tolist() == [1, 2]
    memory.restore(state)
    state.keys.zero_()
    assert valid_marks(memory) == [1, 2]


@pytest.mark.parametrize('capacity, rows, named', [
    (5, 1, '5 tokens'), (4, 2, '2 guidance halves')])
def test_a_state_of_another_memory_is_refused_and_changes_nothing(capacity, rows, named):
    memory, other = make_memory(4, 4), make_memory(capacity, 4, rows)
    write(memory, 2, [1, 2])
    write(other, 2, [8, 9])
    with pytest.raises(ValueError, match=named):
        memory.restore(other.save())
    assert valid_marks(memory) == [1, 2]


def test_room_that_was_made_stays_for_the_writes_that_follow():
    memory = make_memory(6, 4)
    for first in (1, 3, 5):
        write(memory, 2, [first, first + 1])
    memory.make_room(4)
    assert valid_marks(memory) == [5, 6]
    write(memory, 3, [7, 8, 9])
    write(memory, 1, [10])
    assert valid_marks(memory) == [5, 6, 7, 8, 9, 10]
    with pytest.raises(ValueError, match='7 tokens do not fit a memory of 6'):
        memory.make_room(7)


@settings(max_examples=100, deadline=None)
@given(st.integers(4, 12), st.integers(0, 8), st.lists(st.tuples(
    st.sampled_from(['confirm', 'predict', 'forward', 'drop']), st.integers(1, 4)), max_size=40))
def test_valid_tokens_are_always_the_newest_written(capacity, spare, operations):
    memory, expected, number = make_memory(capacity, spare), [], 0
    for kind, tokens in operations:
        if kind == 'drop':
            memory.drop_provisional()
            expected = [entry for entry in expected if not entry[1]]
        else:
            if kind == 'confirm':  # what is confirmed replaces what was predicted
                memory.drop_provisional()
                expected = [entry for entry in expected if not entry[1]]
            expected = expected[max(0, len(expected) + tokens - capacity):]
            if kind == 'forward':
                memory.reserve(tokens)
            else:
                marks = list(range(number, number + tokens))
                number += tokens
                write(memory, tokens, marks, kind == 'predict')
                expected += [(mark, kind == 'predict') for mark in marks]
        assert valid_marks(memory) == [mark for mark, _ in expected]
        assert memory.provisional == sum(predicted for _, predicted in expected)
        assert memory.valid <= memory.capacity and memory.end <= memory.length
