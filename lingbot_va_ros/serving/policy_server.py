"""Answers the three requests of the public protocol with an Engine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from lingbot_va_ros.policy.errors import PredictionAborted
from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.policy.inference.noise import chunk_noise, ChunkNoise
from lingbot_va_ros.policy.inference.normalization import denormalize, normalize
from lingbot_va_ros.policy.interrupt import Interrupt, UNINTERRUPTED
from lingbot_va_ros.serving.protocol import COMMIT, listed, Request, RequestError, RESET
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME


class PolicyServer:
    """
    Answers requests in the order in which they come; one episode at a time.

    A request is checked completely before the model or its memory changes. Not thread-safe.

    :param noise: initial noise by (seed, first frame, chunk shape, latent channels, action
        channels), as `chunk_noise`.
    """

    def __init__(self, engine: Engine, noise: ChunkNoise = chunk_noise):
        self.engine = engine
        self._noise = noise
        self._begun = False  # an episode has begun, and no request has failed since
        self._prompt: str | None = None
        policy = engine.policy
        self._keys = {
            camera: policy.observation_keys.get(camera, camera) for camera in policy.cameras}

    def answer(
        self, request: Request, interrupt: Interrupt = UNINTERRUPTED,
    ) -> dict[str, Any]:
        """
        Execute a request and return the reply: {action: [used, F, N] float32} or {}.

        :param interrupt: checked before every forward pass of a prediction.
        :raises RequestError: the request is rejected; the state is unchanged.
        :raises PredictionAborted: the interrupt requested it; the memory is unchanged.
        """
        if not self._begun and request.kind != RESET:
            raise RequestError(f'{request.kind} without an episode: send reset first')
        carry_out = {RESET: self._reset, COMMIT: self._commit}.get(request.kind)
        try:
            if carry_out is None:
                return self._infer(request, interrupt)
            carry_out(request)
            return {}
        except (RequestError, PredictionAborted):
            raise
        except Exception:
            self._begun = False  # the VAE or the memory may have processed a part of it
            raise

    def metadata(self) -> dict[str, Any]:
        """Return the first message to every client."""
        policy = self.engine.policy
        return {
            'policy': policy.name, 'trained': policy.trained, 'cameras': dict(self._keys),
            'action_shape': [len(policy.used_channels), policy.frames_per_chunk,
                             policy.actions_per_frame]}

    def _reset(self, request: Request) -> None:
        self._begun = False
        self.engine.reset()
        self._prompt = request.prompt
        if request.prompt is not None:
            self.engine.set_instruction(request.prompt)
        self._begun = True

    @torch.inference_mode()
    def _infer(self, request: Request, interrupt: Interrupt) -> dict[str, Any]:
        engine, session = self.engine, self.engine.session
        first_frame, first = session.frame + session.imagined_frames, None
        if first_frame == 0:
            images = self._images(request.observations, 'infer')
            if len(request.observations) != 1:
                raise RequestError(
                    f'infer: {len(request.observations)} observations; the first infer of an '
                    'episode takes one')
        if self._prompt is None:
            if request.prompt is None:
                raise RequestError('infer without an instruction: send prompt with reset')
            engine.set_instruction(request.prompt)
            self._prompt = request.prompt
        if first_frame == 0:
            engine.stream.clear()
            first = engine.stream.encode(images)
        config = session.network.config
        video_noise, action_noise = self._noise(
            engine.seed, first_frame, engine.shape, config.latent_channels,
            config.action_channels)
        prediction = session.predict(video_noise, action_noise, first, interrupt)
        policy = engine.policy
        return {'action': denormalize(
            prediction.actions, policy.used_channels, policy.q01, policy.q99)}

    @torch.inference_mode()
    def _commit(self, request: Request) -> None:
        engine, session, policy = self.engine, self.engine.session, self.engine.policy
        if session.first_latent is None:
            raise RequestError('compute_kv_cache before the first infer of the episode')
        observations = request.observations
        if len(observations) % IMAGES_PER_FRAME:
            raise RequestError(
                f'compute_kv_cache: {len(observations)} observations; expected a multiple of '
                f'{IMAGES_PER_FRAME} (one after every {policy.images_every} actions)')
        # The first latent frame of an episode encodes the first observation only.
        frames = len(observations) // IMAGES_PER_FRAME + (session.frame == 0)
        most = min(2 * policy.frames_per_chunk, engine.memory_capacity)
        if not 0 < frames <= most:
            raise RequestError(
                f'compute_kv_cache: {len(observations)} observations make {frames} frames; '
                f'expected 1 to {most}')
        if request.state is None:
            raise RequestError('compute_kv_cache without state')
        state = self._state(request.state, frames, len(observations))
        images = self._images(observations, 'compute_kv_cache')
        latents = [engine.stream.encode(images)] if observations else []
        if session.frame == 0:
            latents.insert(0, session.first_latent.to(engine.vae.device))
        session.commit(
            torch.cat(latents, 2),
            normalize(state, policy.used_channels, policy.q01, policy.q99))

    def _state(self, state: np.ndarray, frames: int, observations: int) -> np.ndarray:
        policy = self.engine.policy
        expected = (len(policy.used_channels), frames, policy.actions_per_frame)
        if state.shape != expected or state.dtype.kind not in 'fiu':
            raise RequestError(
                f'state is {state.dtype.name} {list(state.shape)}; expected numbers '
                f'{list(expected)} (used channels, frames, actions per frame) for {observations} '
                'observations')
        with np.errstate(over='ignore'):
            state = state.astype(np.float32)
        if not np.isfinite(state).all():
            raise RequestError('state has entries that are not finite')
        return state

    def _images(
        self, observations: Sequence[Mapping[str, Any]], where: str,
    ) -> dict[str, list[np.ndarray]]:
        images: dict[str, list[np.ndarray]] = {camera: [] for camera in self._keys}
        for place, observation in enumerate(observations):
            for camera, key in self._keys.items():
                image = observation.get(key, observation.get(camera))
                if image is None:
                    raise RequestError(
                        f'{where}: obs {place} has no image of camera {camera}; expected keys '
                        f'{", ".join(self._keys.values())}, got {listed(observation) or "none"}')
                if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or (
                        image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape):
                    found = (f'{image.dtype.name} {list(image.shape)}'
                             if isinstance(image, np.ndarray) else type(image).__name__)
                    raise RequestError(
                        f'{where}: obs {place}, {key} is {found}; expected RGB uint8 '
                        '[height, width, 3]')
                images[camera].append(image)
        return images
