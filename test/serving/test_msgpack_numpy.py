"""Arrays are unchanged by packing; non-numeric dtypes and wrong sizes are rejected."""

import pickle

import msgpack
import numpy as np
import pytest

from lingbot_va_ros.serving.msgpack_numpy import MAX_OBJECTS, NUMERIC, pack, unpack, WireError


def array(dtype='|u1', shape=(2,), data=b'ab', **more):
    return msgpack.packb(
        {b'__ndarray__': True, b'data': data, b'dtype': dtype, b'shape': shape, **more})


@pytest.mark.parametrize('dtype', NUMERIC)
@pytest.mark.parametrize('order', '<>')
def test_an_array_comes_back_as_it_was(dtype, order):
    sent = np.arange(6).reshape(2, 3).astype(np.dtype(dtype).newbyteorder(order))
    got = unpack(pack({'a': [sent, sent.T, sent[:0]]}))['a']
    for ours, theirs in zip(got, (sent, sent.T, sent[:0])):
        assert ours.dtype == sent.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_scalars_come_back_as_they_were():
    got = unpack(pack([np.float32(1.5), np.bool_(True), np.int64(-7), 3, 'text', None]))
    assert got == [1.5, True, -7, 3, 'text', None]
    assert [type(value) for value in got[:3]] == [np.float32, np.bool_, np.int64]


@pytest.mark.parametrize('message, reason', [
    (array('|O', data=pickle.dumps([1])), "dtype '|O' is refused"),
    (array('O'), "dtype 'O' is refused"),
    (array([['a', '|O']]), 'dtype of type list is refused'),
    (array('|S2'), "dtype '|S2' is refused"),
    (array('<c8', data=b'01234567', shape=(1,)), "dtype '<c8' is refused"),
    (array('|V2', shape=(1,)), "dtype '|V2' is refused"),
    (array('<M8[s]', data=b'01234567', shape=(1,)), "dtype '<M8[s]' is refused"),
    (array('u1,' * 40), 'is refused'),
    (array(None), 'dtype None is refused'),
    (array(shape=(3,)), 'with 2 bytes; expected 3'),
    (array(shape=(1,)), 'with 2 bytes; expected 1'),
    (array(shape=(2 ** 40, 2 ** 40)), 'with 2 bytes; expected'),
    (array(shape=(-2,)), 'array shape'),
    (array(shape=(-1, -2)), 'array shape'),
    (array(shape=(1,) * 9 + (2,)), 'array shape'),
    (array(shape=2), 'array shape 2'),
    (array(shape=('2',)), 'array shape'),
    (array(data='ab'), 'array data of type str'),
    (msgpack.packb({b'__ndarray__': True}), 'dtype None is refused'),
    (msgpack.packb({b'__npgeneric__': True, b'data': 'x', b'dtype': '<f4'}), 'expected a number'),
    (msgpack.packb({b'__npgeneric__': True, b'data': 300, b'dtype': '|u1'}), 'is not uint8'),
    (msgpack.packb({b'__npgeneric__': True, b'data': b'', b'dtype': '|O'}), 'is refused'),
    (msgpack.packb(msgpack.ExtType(42, b'')), 'refused'),
    (msgpack.packb(msgpack.ExtType(42, b'x')), 'not a complete msgpack message'),
    (b'', 'not a complete msgpack message'),
    (b'\xc1', 'not a complete msgpack message'),
    (b'not msgpack', 'not a complete msgpack message'),
    (pack({'obs': np.zeros(9)})[:-1], 'not a complete msgpack message'),
    (pack({'obs': np.zeros(9)}) + b'\0', 'not a complete msgpack message'),
    (pickle.dumps({'reset': True}), 'not a complete msgpack message'),
    (msgpack.packb({1: 2}), 'not a complete msgpack message'),
    (msgpack.packb('x' * 70000), 'not a complete msgpack message'),
    (b'\xdd\xff\xff\xff\xff', 'not a complete msgpack message'),
    (b'\xdf\xff\xff\xff\xff', 'not a complete msgpack message'),
    (b'\x91' * 5000 + b'\xc0', 'not a complete msgpack message'),
])
def test_what_is_no_plain_message_is_refused(message, reason):
    with pytest.raises(WireError) as refusal:
        unpack(message)
    assert reason in str(refusal.value)
    assert '\n' not in str(refusal.value) and len(str(refusal.value)) < 300


def test_a_message_cannot_unfold_into_many_objects():
    rows = msgpack.packb([[{}] * 1000] * (MAX_OBJECTS // 1000 + 1))
    with pytest.raises(WireError, match='entries'):
        unpack(rows)


@pytest.mark.parametrize('content', [
    np.array([{}], object), np.array(['a']), np.array([1j]), {1, 2}, object()])
def test_what_is_not_numbers_is_not_sent(content):
    with pytest.raises(TypeError, match='cannot be sent'):
        pack({'a': content})
