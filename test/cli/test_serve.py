"""Clients of the public protocol get the results of the session, also after invalid requests."""

import os
from pathlib import Path
import pickle
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import msgpack
import numpy as np
import pytest
from support.waiting import wait_for_end
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lingbot_va_ros.cli.main import main

SEED = 5
PROMPT = 'stack the cubes'
LIMIT_MIB = 2
START_SECONDS = 50.0


def packed(value):
    """Pack an array as the public clients do."""
    return {b'__ndarray__': True, b'data': value.tobytes(), b'dtype': value.dtype.str,
            b'shape': value.shape}


def unpacked(entries):
    if b'__ndarray__' not in entries:
        return entries
    return np.frombuffer(entries[b'data'], entries[b'dtype']).reshape(entries[b'shape'])


class Refused(Exception):
    """The server has answered with a line of text."""


class Client:
    """What a client of the public protocol does."""

    def __init__(self, port):
        self.opening = connect(
            f'ws://127.0.0.1:{port}', compression=None, max_size=None, ping_interval=None,
            proxy=None)

    def __enter__(self):
        self.connection = self.opening.__enter__()
        self.metadata = self.receive()
        return self

    def __exit__(self, *details):
        return self.opening.__exit__(*details)

    def receive(self):
        reply = self.connection.recv(timeout=30)
        if isinstance(reply, str):
            raise Refused(reply)
        return msgpack.unpackb(reply, object_hook=unpacked)

    def send(self, **request):
        self.connection.send(msgpack.packb(request, default=packed))

    def ask(self, **request):
        self.send(**request)
        return self.receive()

    def ask_raw(self, message):
        self.connection.send(message)
        return self.receive()

    def reset_when_free(self):
        """Reset as soon as the server has noticed that the connection before has closed."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.ask(reset=True, prompt=PROMPT)
            except Refused:
                assert time.monotonic() < deadline
                time.sleep(0.02)


class Server:
    """`lingbot_va serve` as a process."""

    def __init__(self, checkpoint, log, *options):
        self.log = log
        # Another folder than the checkout, as for every user.
        environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
        with open(log, 'wb') as output:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'lingbot_va_ros.cli.main', 'serve', '--checkpoint',
                 str(checkpoint), '--port', '0', '--device', 'cpu', *options],
                env=environment, stdout=output, stderr=subprocess.STDOUT)

    def wait_for(self, pattern):
        """Return what the pattern finds in the output, once it does."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            found = re.search(pattern, self.log.read_text())
            if found:
                return found
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f'no {pattern!r} in:\n{self.log.read_text()}')

    @property
    def port(self):
        return int(self.wait_for(r'listening on ws://127\.0\.0\.1:(\d+)')[1])

    def peak_mib(self):
        status = Path(f'/proc/{self.process.pid}/status').read_text()
        return int(re.search(r'VmHWM:\s+(\d+) kB', status)[1]) / 1024

    def interrupt(self):
        """Return the exit code after a SIGINT, which ends the process within 5 s."""
        self.process.send_signal(signal.SIGINT)
        return wait_for_end(self.process, 5.0)

    def end(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope='module')
def server(untrained_checkpoint, tmp_path_factory):
    """A server with small messages."""
    server = Server(
        untrained_checkpoint, tmp_path_factory.mktemp('serve') / 'log', '--seed', str(SEED),
        '--max-message-mib', str(LIMIT_MIB))
    yield server
    server.end()


@pytest.fixture(scope='module')
def slow(untrained_checkpoint, tmp_path_factory):
    """A server whose predictions take seconds, and that soon gives up silent clients."""
    server = Server(
        untrained_checkpoint, tmp_path_factory.mktemp('slow') / 'log', '--action-steps', '1500',
        '--idle-timeout', '0.5')
    yield server
    server.end()


@pytest.fixture
def client(server):
    with Client(server.port) as client:
        client.reset_when_free()
        yield client


@pytest.fixture(scope='module')
def played(untrained_checkpoint):
    """
    An episode of three chunks on a Session in this process: observations, state, actions.

    All but the shapes and the initial noise is computed without the server's modules.
    """
    import torch

    from lingbot_va_ros.model.video_vae import VaeStream
    from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
    from lingbot_va_ros.policy.inference.noise import chunk_noise
    from lingbot_va_ros.policy.inference.normalization import denormalize, normalize
    from lingbot_va_ros.policy.inference.session import Session
    from lingbot_va_ros.specs.policy_file import load_policy_file

    torch.set_num_threads(1)
    policy = load_policy_file(untrained_checkpoint / 'policy.yaml')
    engine = load_engine(EngineConfig.of_policy(untrained_checkpoint, policy, SEED))
    network, layout = engine.session.network, (policy.used_channels, policy.q01, policy.q99)
    session = Session(
        network, engine.shape, policy.video, policy.action, policy.used_channels,
        policy.memory_chunks)
    session.set_text(engine.text_encoder.encode(PROMPT))
    stream = VaeStream(
        engine.vae, policy.layout, policy.cameras, policy.height, policy.width)
    random, chunks = np.random.default_rng(0), []

    def see():
        return {name: random.integers(0, 256, (48, 60, 3), dtype=np.uint8)
                for name in policy.cameras}

    first = see()
    with torch.inference_mode():
        first_latent = stream.encode({name: [image] for name, image in first.items()})
    for _ in range(3):
        noise = chunk_noise(
            SEED, session.frame, engine.shape, network.config.latent_channels,
            network.config.action_channels)
        action = denormalize(session.predict(*noise, first_latent).actions, *layout)
        frames = policy.frames_per_chunk - (session.frame == 0)
        seen = [see() for _ in range(4 * frames)]
        state = action + random.normal(0, 0.01, action.shape).astype(np.float32)
        chunks.append((action, seen, state))
        with torch.inference_mode():
            latents = stream.encode({name: [each[name] for each in seen]
                                     for name in policy.cameras})
            if session.frame == 0:
                latents = torch.cat((first_latent, latents), 2)
            session.commit(latents, normalize(state, *layout))
    return first, chunks


def commit_of(chunk):
    _, seen, state = chunk
    return {'obs': seen, 'compute_kv_cache': True, 'imagine': False, 'state': state}


def test_an_episode_agrees_with_the_session(client, played):
    first, chunks = played
    assert client.metadata['action_shape'] == list(chunks[0][0].shape)
    assert client.metadata['trained'] is False
    for _ in range(2):  # a reset forgets everything
        assert list(client.ask(reset=True, prompt=PROMPT)) == ['server_timing']
        for chunk in chunks:
            reply = client.ask(obs=first, prompt=PROMPT)
            assert sorted(reply) == ['action', 'server_timing']
            assert reply['server_timing']['infer_ms'] > 0
            assert reply['action'].dtype == np.float32
            np.testing.assert_allclose(reply['action'], chunk[0], rtol=0, atol=1e-5)
            assert list(client.ask(**commit_of(chunk))) == ['server_timing']


def rubbish(played):
    """Return messages that cannot be used, and a part of the answer to each."""
    _, chunks = played
    good = msgpack.packb(commit_of(chunks[0]), default=packed)
    _, seen, state = chunks[0]
    other = [{'observation.images.top': each['head']} for each in seen]

    def request(**changes):
        return msgpack.packb({**commit_of(chunks[0]), **changes}, default=packed)

    def array(dtype, data):
        return msgpack.packb({'obs': {'head': {
            b'__ndarray__': True, b'dtype': dtype, b'data': data, b'shape': [1]}}})

    return [
        (b'', 'not a complete msgpack message'), (b'\xc1\xff', 'not a complete msgpack message'),
        ('a line of text', 'not a complete msgpack message'),
        (good[:-1], 'not a complete msgpack message'),
        (good[:len(good) // 2], 'not a complete msgpack'),
        (pickle.dumps({'reset': True}), 'not a complete msgpack message'),
        (msgpack.packb([1, 2]), 'a request is a map'),
        (msgpack.packb({'observation': {}}), "unknown key 'observation'"),
        (array('|O', pickle.dumps([1])), "dtype '|O' is refused"),
        (array('|S1', b'a'), "dtype '|S1' is refused"),
        (request(state=state[:-1]), 'state is float32 [6, 2, 8]; expected numbers [7, 2, 8]'),
        (request(state=state * np.nan), 'not finite'), (request(obs=seen[:3]), '3 observations'),
        (request(obs=other), 'no image of camera head'),
        (bytes(LIMIT_MIB * 2 ** 20 + 1), 'more than 2 MiB'),
        (bytes(9 * LIMIT_MIB * 2 ** 20), 'more than 2 MiB'),
        ([bytes(2 ** 20)] * 3, 'more than 2 MiB'),  # in fragments
        ([good[:1000], bytes(5 * 2 ** 20), good[1000:]], 'more than 2 MiB'),
    ]


def test_invalid_requests_are_answered_and_change_nothing(client, played):
    first, chunks = played
    client.ask(reset=True, prompt=PROMPT)
    client.ask(obs=first)
    for message, reason in rubbish(played):
        with pytest.raises(Refused) as refusal:
            client.ask_raw(message)
        assert reason in str(refusal.value)
        assert '\n' not in str(refusal.value)
    client.ask(**commit_of(chunks[0]))
    np.testing.assert_allclose(
        client.ask(obs=first)['action'], chunks[1][0], rtol=0, atol=1e-5)


def test_fragments_make_one_message(client, played):
    first, chunks = played
    client.ask(reset=True, prompt=PROMPT)
    message = msgpack.packb({'obs': first}, default=packed)
    action = client.ask_raw([message[:10], b'', message[10:999], message[999:]])['action']
    np.testing.assert_allclose(action, chunks[0][0], rtol=0, atol=1e-5)


def test_a_message_that_is_too_long_costs_no_memory(server, client):
    before = server.peak_mib()
    with pytest.raises(Refused, match='more than 2 MiB'):
        client.ask_raw(bytes(128 * 2 ** 20))
    assert server.peak_mib() < before + 32
    assert list(client.ask(reset=True, prompt=PROMPT)) == ['server_timing']


def test_half_a_message_of_another_changes_nothing(server, client, played):
    first, chunks = played
    client.ask(reset=True, prompt=PROMPT)
    client.ask(obs=first)
    for sent in (b'', b'\x82', b'\x82\xff\x00', b'\x82\xff' + bytes(5) + b'\x0f\x00\x00abcd' * 99):
        with socket.create_connection(('127.0.0.1', server.port)) as plug:
            plug.sendall(
                b'GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                b'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n'
                b'\r\n')
            assert plug.recv(12) == b'HTTP/1.1 101'
            plug.sendall(sent)
    client.ask(**commit_of(chunks[0]))
    np.testing.assert_allclose(
        client.ask(obs=first)['action'], chunks[1][0], rtol=0, atol=1e-5)


def test_a_second_client_waits_until_the_first_has_closed(server, played):
    first, chunks = played
    with Client(server.port) as second:
        with Client(server.port) as owner:
            owner.ask(reset=True, prompt=PROMPT)
            owner.ask(obs=first)
            with pytest.raises(Refused, match=r'busy with an episode of 127\.0\.0\.1'):
                second.ask(reset=True, prompt='something else')
            with pytest.raises(Refused, match='send reset first'):
                second.ask(obs=first)
            owner.ask(**commit_of(chunks[0]))
            np.testing.assert_allclose(
                owner.ask(obs=first)['action'], chunks[1][0], rtol=0, atol=1e-5)
        second.reset_when_free()
        np.testing.assert_allclose(
            second.ask(obs=first)['action'], chunks[0][0], rtol=0, atol=1e-5)


def test_health_is_served_over_http(server):
    url = f'http://127.0.0.1:{server.port}/healthz'
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        assert (answer.status, answer.read()) == (200, b'OK\n')


def test_a_page_in_a_browser_cannot_connect(server):
    url = f'ws://127.0.0.1:{server.port}'
    with pytest.raises(InvalidStatus, match='403'):
        with connect(url, origin='http://example.org', proxy=None):
            pass


def test_an_idle_client_loses_the_episode_and_gets_an_error(slow):
    with Client(slow.port) as silent, Client(slow.port) as second:
        silent.reset_when_free()
        with pytest.raises(Refused, match='busy'):
            second.ask(reset=True, prompt=PROMPT)
        time.sleep(0.6)
        second.ask(reset=True, prompt=PROMPT)
        with pytest.raises(Refused, match='send reset first'):
            silent.ask(obs={})


def test_a_client_that_leaves_does_not_keep_the_model_busy(slow, played):
    first, _ = played
    with Client(slow.port) as second:
        with Client(slow.port) as leaving:
            leaving.reset_when_free()
            leaving.send(obs=first)
            time.sleep(0.6)  # longer than a silent client would be waited for
            with pytest.raises(Refused, match='busy'):
                second.ask(reset=True, prompt=PROMPT)
        second.reset_when_free()
    slow.wait_for('the prediction was aborted')


def test_sigint_ends_a_prediction(slow, played):
    first, _ = played
    with Client(slow.port) as client:
        client.reset_when_free()
        client.send(obs=first)
        time.sleep(0.3)
        assert slow.interrupt() == 0, slow.log.read_text()
        with pytest.raises(ConnectionClosed, match='1001'):
            client.receive()
    assert 'Traceback' not in slow.log.read_text()


def test_sigint_ends_loading(untrained_checkpoint, tmp_path):
    server = Server(untrained_checkpoint, tmp_path / 'log')
    try:
        server.wait_for('INFO')  # the first line of many
        assert server.interrupt() == 0, server.log.read_text()
        assert 'Traceback' not in server.log.read_text()
    finally:
        server.end()


def test_what_keeps_it_from_starting_is_named_in_one_line(untrained_checkpoint, tmp_path, capsys):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = str(taken.getsockname()[1])
        for words, reason in (
                (['--checkpoint', str(tmp_path / 'nowhere'), '--port', '0'], 'nowhere is not a'),
                (['--checkpoint', str(tmp_path), '--port', '0'], 'policy'),
                (['--checkpoint', str(untrained_checkpoint), '--port', '0',
                  '--video-exec-steps', '99'], '--video-exec-steps 99: expected -1, or 1 to 5'),
                (['--checkpoint', str(untrained_checkpoint), '--port', port], f'port {port}'),
                (['--checkpoint', str(untrained_checkpoint), '--port', '0', '--host',
                  'no.such.host.invalid'], 'no.such.host.invalid')):
            assert main(['serve', *words]) == 1
            output = capsys.readouterr()
            lines = [line for line in output.err.splitlines() if ' INFO ' not in line]
            assert len(lines) == 1 and reason in lines[0], output.err
