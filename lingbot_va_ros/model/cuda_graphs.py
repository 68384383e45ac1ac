"""
Denoising steps as CUDA graphs: one call replays all kernels of a repeated step.

A step of a large network has about a thousand small kernels. Python launches them more slowly than
a fast device runs them. A graph has fixed addresses. Therefore there is one graph for every slot
of the KV cache, that is for every number of chunks in it (a full window alternates between two
slots), and the inputs of a step are copied to tensors with fixed addresses. Without padding or
masks, a replay reads and writes the same slices as the step.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
import logging

import torch
from torch import Tensor

from lingbot_va_ros.model.kv_cache import CacheSlot
from lingbot_va_ros.model.transformer import Network, TextKV

# Cached graphs: video and action steps after each of 36 chunks, and for the two slots of a full
# window.
KEPT = 96
Step = Callable[[], Tensor]
# Records a step; returns a function that replays it, and the tensor with its result.
Record = Callable[[Step], tuple[Callable[[], None], Tensor]]


class StepGraphs:
    """
    The denoising steps of one network, with its methods `video_velocity` and `action_velocity`.

    The first step at a slot runs normally, the second is recorded, later ones are replayed. If
    recording fails, one line is logged, and all steps run normally from then on.

    :param record: a `CudaRecorder`, or another function that records a step.

    `recordings` counts the steps that were recorded.
    """

    def __init__(self, network: Network, record: Record):
        self.recordings = 0
        self._network = network
        self._record: Record | None = record
        self._inputs: dict = {}  # by kind and sizes: content, time embedding and vectors, rotary
        self._recorded: OrderedDict = OrderedDict()  # by slot, newest last; None: run once
        self._known: tuple = ()  # text and KV cache, whose addresses are in the graphs

    def video_velocity(
        self, latents: Tensor, steps: Sequence[float], rotary: Tensor, text: TextKV,
        slot: CacheSlot,
    ) -> Tensor:
        """Return the result of `Network.video_velocity`, a new tensor."""
        return self._velocity('video', latents, steps, rotary, text, slot)

    def action_velocity(
        self, actions: Tensor, steps: Sequence[float], rotary: Tensor, text: TextKV,
        slot: CacheSlot,
    ) -> Tensor:
        """Return the result of `Network.action_velocity`, a new tensor."""
        return self._velocity('action', actions, steps, rotary, text, slot)

    def _velocity(
        self, kind: str, content: Tensor, steps: Sequence[float], rotary: Tensor,
        text: TextKV, slot: CacheSlot,
    ) -> Tensor:
        times = self._network.times_at(kind, steps)
        if self._record is None:
            return self._network.velocity(kind, content, times, rotary, text, slot)
        if not (self._known and self._known[0] is text and self._known[1] is slot.cache):
            self._recorded.clear()
            self._known = (text, slot.cache)
        content, embedding, vectors, rotary = self._fill(kind, (content, *times, rotary))
        times = embedding, vectors
        key = (kind, content.shape, slot.oldest, slot.new.start, slot.cfg_batch.start)

        def step() -> Tensor:
            return self._network.velocity(kind, content, times, rotary, text, slot)

        if key not in self._recorded:
            self._recorded[key] = None
            if len(self._recorded) > KEPT:
                self._recorded.popitem(last=False)
            return step()
        self._recorded.move_to_end(key)
        if self._recorded[key] is None:
            try:
                self.recordings += 1
                self._recorded[key] = self._record(step)
            except RuntimeError as error:
                self._give_up(error)
                return step()
        replay, result = self._recorded[key]
        replay()
        return result.clone()

    def _fill(self, kind: str, values: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Copy the inputs of a step to the tensors that its graphs read."""
        key = (kind, *(value.shape for value in values))
        if key not in self._inputs:
            self._inputs[key] = tuple(
                torch.empty(value.shape, dtype=value.dtype, device=value.device)
                for value in values)
        for target, value in zip(self._inputs[key], values):
            target.copy_(value)
        return self._inputs[key]

    def _give_up(self, error: RuntimeError) -> None:
        self._record = None
        self._recorded.clear()
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        logging.getLogger(__name__).warning(
            'denoising steps run without CUDA graphs: %s', reason)


class CudaRecorder:
    """
    Records steps on a CUDA device. All graphs share one memory pool, because one runs at a time.

    It does not use `torch.cuda.graph`, which empties the allocator's cache before every recording.
    """

    def __init__(self, device: torch.device):
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> tuple[Callable[[], None], Tensor]:
        """
        Run a step once, so that libraries are initialized on the stream, then record it.

        Other threads may use the device during the recording.

        :raises RuntimeError: an operation of the step cannot be recorded.
        """
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._stream):
            step()
            self._stream.synchronize()
            graph.capture_begin(pool=self._pool, capture_error_mode='thread_local')
            try:
                result = step()
            finally:
                graph.capture_end()
        current.wait_stream(self._stream)
        return graph.replay, result


def step_graphs(network: Network) -> StepGraphs | None:
    """Return the graphs of a network's steps on a CUDA device; None elsewhere."""
    if network.device.type != 'cuda':
        return None
    return StepGraphs(network, CudaRecorder(network.device))
