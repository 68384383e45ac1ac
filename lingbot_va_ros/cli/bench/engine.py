"""Time forward passes and chunks of the engine and the peer, KV cache empty and full."""

from collections.abc import Callable
from dataclasses import dataclass, field
import statistics
import time
from typing import Any

import torch
from torch import Tensor

from lingbot_va_ros.cli.bench.operations import attention_ms, linear_gflops
from lingbot_va_ros.cli.bench.peer import AGREEMENT, drawn_noise, Peer
from lingbot_va_ros.cli.bench.roofline import (
    by_processor_time,
    chunk_seconds,
    ItemBytes,
    MachineRates,
)
from lingbot_va_ros.cli.bench.session import (
    encode_chunk,
    fill_memory,
    make_random_network,
    make_session,
    make_stream,
    part_bytes,
    PeakMemory,
)
from lingbot_va_ros.cli.bench.settings import Setting
from lingbot_va_ros.model.rope import action_positions, rotary_table, video_positions
from lingbot_va_ros.policy.inference.session import Session
from lingbot_va_ros.specs.engine_choices import FULL

NOISY = 500.0  # time step of the forward passes that are timed separately


@dataclass
class Timer:
    """
    Times of work on a device by name, ms, in the order of measurement.

    `processor` has the processor time of all threads: it excludes other processes, and includes
    the time that threads of this process wait for each other.
    """

    device: torch.device
    samples: dict[str, list[float]] = field(default_factory=dict)
    processor: dict[str, list[float]] = field(default_factory=dict)

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """Call `work`, wait for the device, record the time, and return the result."""
        self._wait()
        since, processor = time.perf_counter(), time.process_time()
        result = work()
        self._wait()
        self.samples.setdefault(name, []).append((time.perf_counter() - since) * 1e3)
        self.processor.setdefault(name, []).append((time.process_time() - processor) * 1e3)
        return result

    def median(self, name: str) -> float | None:
        """Return the median time of a name, ms; None if nothing was measured."""
        return statistics.median(self.samples[name]) if name in self.samples else None

    def processor_median(self, name: str) -> float | None:
        """Return the median processor time on a CPU; None elsewhere, and without measurements."""
        if self.device.type != 'cpu' or name not in self.processor:
            return None
        return statistics.median(self.processor[name])

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def measure_setting(
    setting: Setting, device: torch.device, dtype: torch.dtype, repeats: int, seed: int,
    peer_modules: tuple | None, say: Callable[[str], None], rate: Callable[[], MachineRates],
    weights: str = FULL, graphs: bool = True,
) -> list[dict]:
    """
    Return a row of results with the KV cache empty and one with it full, without the roofline.

    :param repeats: repetitions of each measurement, after one warm-up.
    :param peer_modules: modules of `load_server_module`; None measures no peer.
    :param say: called with one line before each measurement.
    :param rate: measures the machine's rates; called after every chunk.
    :param weights: kind of quantization.
    :param graphs: whether denoising steps are recorded as CUDA graphs.
    """
    peak = PeakMemory(device)
    network, attention = make_random_network(setting, device, dtype, seed, weights)
    say(attention)
    session, text = make_session(network, setting, seed, graphs)
    bench = _Bench(setting, session, seed)
    fill_memory(session, seed)
    bench.chunk(0)
    peak_bytes = peak.bytes()
    stream = make_stream(setting, device, dtype)
    encode_ms = None
    if stream is not None:
        say('encoding images')
        encode_ms = _encode_ms(encode_chunk(stream, setting), device, repeats)
    parts = part_bytes(session, stream)
    say('attention and products')
    operations = {
        'attention_ms': attention_ms(session, setting, repeats),
        'linear_gflops': linear_gflops(session, setting, repeats)}
    peer = None
    if peer_modules is not None:
        say('making the peer')
        peer = Peer(peer_modules, setting, network, text)
    rows = []
    try:
        for full in (False, True):
            say(f'memory {"full" if full else "empty"}')
            rows.append({
                **bench.row(full, peer, repeats, say, rate), 'encode_ms': encode_ms,
                'weights': weights, 'graphs': session.denoiser.step_runner is not network,
                **operations, 'peak_bytes': peak_bytes, 'part_bytes': parts})
    finally:
        if peer is not None:
            peer.close()
    return rows


def add_roofline(
    rows: list[dict], setting: Setting, item_bytes: ItemBytes, rates: MachineRates, threads: int,
) -> None:
    """
    Add to a setting's rows the roofline time of a chunk, and its share of the measured time.

    The share compares the best of the run: the fastest chunk (see `by_processor_time`) and the
    best `rates`. Its range is that of single samples, each with the rates measured after it.
    """
    for row in rows:
        alone = by_processor_time(torch.device(row['device']), threads)
        samples = row['processor_samples_ms' if alone else 'samples_ms']['chunk']
        floor, *floors = (
            1e3 * chunk_seconds(setting, row['memory_tokens'], item_bytes, each)
            for each in (rates, *row.pop('rates')))
        shares = [one / sample for one, sample in zip(floors, samples)]
        row['floor_ms'], row['roofline_share'] = floor, floor / min(samples)
        row['roofline_share_range'] = [min(shares), max(shares)]


def _encode_ms(encode: Callable[[], None], device: torch.device, repeats: int) -> float | None:
    timer = Timer(device)
    encode()
    for _ in range(repeats):
        timer.run('encode', encode)
    return timer.median('encode')


class _Bench:
    """A session and its inputs: noise, observed latents, executed actions."""

    def __init__(self, setting: Setting, session: Session, seed: int):
        self._setting = setting
        self._session = session
        self._seed = seed
        self._tables: dict[tuple, Tensor] = {}
        shape, config, device = session.shape, setting.network, session.network.device
        generator = torch.Generator().manual_seed(seed + 3)
        self._seen = torch.randn(
            (1, config.latent_channels, shape.frames, shape.rows, shape.columns),
            generator=generator).to(device, session.network.dtype)

    def chunk(self, number: int) -> tuple:
        """Predict and commit a chunk; return its latents and its actions."""
        session, network = self._session, self._session.network
        noise = drawn_noise(self._setting, self._noise_seed(number), network.device, network.dtype)
        prediction = session.predict(*noise, self._seen[:, :, :1])
        session.commit(self._seen, prediction.actions)
        return prediction.latents, prediction.actions

    def peer_chunk(self, peer: Peer, number: int, executed: Tensor) -> tuple:
        """Predict and commit a chunk with the peer, with the same noise and executed actions."""
        begins = peer.server.frame_st_id == 0
        latents, actions = peer.predict(self._noise_seed(number), self._seen[:, :, :1])
        peer.commit(self._seen[:, :, 1:] if begins else self._seen, executed)
        return latents, actions

    def forward(self, kind: str) -> None:
        """
        Run a denoising forward pass as a prediction does, and restore the KV cache.

        :raises ValueError: the session has no instruction.
        """
        session, rows = self._session, self._rows(kind)
        text = session.text
        if text is None:
            raise ValueError('a forward pass needs an instruction')
        memory = session.kv_cache
        mark = memory.mark()
        tokens = session.denoiser.video_tokens if kind == 'video' else session.shape.action_tokens
        place = memory.reserve(tokens, slice(0, rows))
        content = self._content(kind)
        content = content.expand(rows, *content.shape[1:])
        steps = session.denoiser.step_runner
        velocity = steps.video_velocity if kind == 'video' else steps.action_velocity
        with torch.inference_mode():
            velocity(content, session.shape.frames * [NOISY], self._rotary(kind), text, place)
        memory.rewind(mark)

    def row(
        self, full: bool, peer: Peer | None, repeats: int, say: Callable,
        rate: Callable[[], MachineRates],
    ) -> dict:
        """Return the measured part of a row of results."""
        session, setting = self._session, self._setting
        timer = Timer(session.network.device)
        # A graph is recorded when a step repeats, and a full window alternates between two slots.
        warm = 1 if session.denoiser.step_runner is session.network else 2
        self._begin(full, peer)
        remembered = session.confirmed_tokens
        for turn in range(warm + repeats):
            kept = timer if turn >= warm else Timer(timer.device)
            for kind in ('video', 'action'):
                kept.run(kind, lambda: self.forward(kind))
                if peer is not None:
                    kept.run(f'peer {kind}', lambda: peer.forward(
                        kind, self._content(kind), NOISY))
        worst, rates = 0.0, []
        for turn in range(warm + repeats):
            kept = timer if turn >= warm else Timer(timer.device)
            if not full:
                self._begin(full, peer)
            latents, actions = kept.run('chunk', lambda: self.chunk(turn))
            if kept is timer:
                rates.append(rate())
            if peer is not None:
                theirs = kept.run('peer chunk', lambda: self.peer_chunk(peer, turn, actions))
                used = list(setting.policy.used_channels)
                worst = max(worst, _distance(latents, theirs[0]),
                            _distance(actions[0, used, :, :, 0], theirs[1]))
        agrees = worst <= AGREEMENT[session.network.dtype]
        if peer is not None and not agrees:
            say(f"the peer's results differ by {worst:.2g}: no ratio")
        return {
            'setting': setting.name, 'device': timer.device.type,
            'dtype': str(session.network.dtype).removeprefix('torch.'),
            'memory_tokens': remembered, 'video_forward_ms': timer.median('video'),
            'action_forward_ms': timer.median('action'), 'chunk_ms': timer.median('chunk'),
            'peer_chunk_ms': timer.median('peer chunk') if agrees else None,
            'peer_video_forward_ms': timer.median('peer video') if agrees else None,
            'peer_action_forward_ms': timer.median('peer action') if agrees else None,
            'chunk_processor_ms': timer.processor_median('chunk'),
            'peer_chunk_processor_ms': timer.processor_median('peer chunk') if agrees else None,
            'peer_difference': None if peer is None else worst,
            'video_steps': setting.video.steps, 'action_steps': setting.action.steps,
            'guidance': [setting.video.guidance, setting.action.guidance],
            'chunk_tokens': [setting.video_tokens, setting.action_tokens],
            'samples_ms': timer.samples, 'processor_samples_ms': timer.processor,
            'rates': rates}

    def _begin(self, full: bool, peer: Peer | None) -> None:
        if full:
            fill_memory(self._session, self._seed)
        else:
            self._session.reset()
        if peer is not None and full:
            peer.fill(self._session, self._seed)
        elif peer is not None:
            peer.reset()

    def _rotary(self, kind: str) -> Tensor:
        """Return the rotary table of the next chunk, which a session computes once per chunk."""
        shape, network, first = self._session.shape, self._session.network, self._session.frame
        patch = network.config.patch
        if (kind, first) not in self._tables:
            positions = (
                video_positions(
                    shape.frames, shape.rows // patch[1], shape.columns // patch[2], first)
                if kind == 'video' else action_positions(shape.frames, shape.actions, first))
            self._tables[kind, first] = rotary_table(
                positions, network.config.head_dim, network.device)
        return self._tables[kind, first]

    def _rows(self, kind: str) -> int:
        sampling = self._session.video if kind == 'video' else self._session.action
        return 2 if sampling.guidance > 1 else 1

    def _content(self, kind: str) -> Tensor:
        if kind == 'video':
            return self._seen
        shape, network = self._session.shape, self._session.network
        return torch.ones(
            (1, network.config.action_channels, shape.frames, shape.actions, 1),
            device=network.device, dtype=network.dtype)

    def _noise_seed(self, number: int) -> int:
        return self._seed * 1000 + number


def _distance(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest difference; infinite if it is not finite or the shapes differ."""
    if ours.shape != theirs.shape:
        return float('inf')
    difference = (ours.float().cpu() - theirs.float().cpu()).abs().max()
    return float(difference) if torch.isfinite(difference) else float('inf')
