"""
Trains a small video VAE of the public class on recorded images: encoder first, then decoder.

The loss emphasizes the bodies of the task: marked pixels have a larger weight, and a linear map
regresses body positions from the latents. The decoder is used for predicted video only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn, Tensor
from torch.nn import functional

from lingbot_va_ros.model.camera_layout import PIXELS_PER_LATENT as PIXELS
from lingbot_va_ros.model.video_vae import AutoencoderKLWan
from lingbot_va_ros.specs.checkpoint_config import IMAGES_PER_FRAME
from lingbot_va_ros.training.episode_files import Recording
from lingbot_va_ros.training.settings import VideoVaeSettings
from lingbot_va_ros.training.state import EMA, load_state, Report, save_state, Stop, warmup_cosine

PLACE_SCALE = 0.05  # m; an error of this size has the loss 1
SAVE_EVERY = 200  # steps
REPORT_EVERY = 20
LATENT_NOISE = 0.1  # in standard deviations of the latents
LOG_VARIANCES = (-30.0, 20.0)  # the bounds of diffusers


@dataclass(frozen=True)
class Footage:
    """
    Recordings of one task, from which clips are drawn.

    Per recording `images` uint8 [T + 1, V, H, W, 3] and `marked` bool [T + 1, V, H, W] of all V
    views, and `places` float32 [T + 1, 3 * bodies], positions of the bodies in the world frame, m.
    """

    task: str
    bodies: tuple[str, ...]
    images: list[np.ndarray]
    marked: list[np.ndarray]
    places: list[np.ndarray]


def make_footage(recordings: Sequence[Recording], cameras: Sequence[str]) -> Footage:
    """Return the footage of recordings, all of one task."""
    bodies = tuple(sorted(recordings[0].places))
    return Footage(
        recordings[0].task, bodies,
        [np.stack([each.images[name] for name in cameras], 1) for each in recordings],
        [np.stack([each.marked[name] for name in cameras], 1) for each in recordings],
        [np.concatenate([each.places[name] for name in bodies], 1) for each in recordings])


def new_vae(settings: VideoVaeSettings) -> AutoencoderKLWan:
    """Return an untrained VAE with the strides of the public one: 16 x 16 pixels, 4 images."""
    return AutoencoderKLWan(
        base_dim=settings.base, decoder_base_dim=settings.decoder_base, z_dim=settings.channels,
        dim_mult=[1, 2, 4, 4], num_res_blocks=settings.blocks, attn_scales=[],
        temperal_downsample=[False, True, True], is_residual=True, in_channels=12,
        out_channels=12, patch_size=2, scale_factor_temporal=4, scale_factor_spatial=16,
        latents_mean=[0.0] * settings.channels, latents_std=[1.0] * settings.channels)


class EncoderTraining(nn.Module):
    """
    The encoder with the auxiliary outputs that train it.

    These are a linear map from latents to images, and for each task a linear map from the latents
    of all views to body positions, which makes them easy to use for a transformer. The decoder of
    the public class costs more than all of these and is trained afterwards.
    """

    def __init__(self, settings: VideoVaeSettings, footage: Sequence[Footage]):
        super().__init__()
        self.settings = settings
        self.vae = new_vae(settings)
        views, height, width = footage[0].images[0].shape[1:4]
        numbers = views * settings.channels * (height // PIXELS) * (width // PIXELS)
        self.sketch = nn.Conv2d(
            settings.channels, IMAGES_PER_FRAME * 3 * PIXELS ** 2, 3, padding=1)
        self.places = nn.ModuleDict({
            each.task: nn.Linear(numbers, 3 * len(each.bodies)) for each in footage})

    def forward(
        self, task: str, images: Tensor, marked: Tensor, places: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """
        Return the parts of the loss; `total` is minimized.

        :param images: [B, V, 3, T, H, W] in [-1, 1] of V views, T = 1, 5, 9 …
        :param marked: [B, V, T, H, W] bool.
        :param places: [B, F, 3 * bodies], m, at the last image of each latent frame.
        """
        flat = images.flatten(0, 1)
        mean, log_variance = self.vae.encode(flat).latent_dist.parameters.chunk(2, 1)
        log_variance = log_variance.clamp(*LOG_VARIANCES)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        latents = mean + (0.5 * log_variance).exp() * noise
        picture = image_loss(
            self._sketch(latents), flat, marked.flatten(0, 1), self.settings.marked_weight)
        divergence = 0.5 * (mean ** 2 + log_variance.exp() - 1 - log_variance).mean()
        found = self.places[task](features(latents.unflatten(0, images.shape[:2])))
        place = functional.mse_loss(found, places / PLACE_SCALE)
        total = picture + self.settings.kl * divergence + self.settings.places * place
        return {'total': total, 'picture': picture, 'divergence': divergence, 'places': place}

    def _sketch(self, latents: Tensor) -> Tensor:
        """Return images [B, 3, T, H, W] of latents [B, C, F, h, w]."""
        batch, _, frames, rows, columns = latents.shape
        cells = self.sketch(latents.transpose(1, 2).flatten(0, 1))
        cells = cells.view(batch, frames, IMAGES_PER_FRAME, 3, PIXELS, PIXELS, rows, columns)
        pictures = cells.permute(0, 3, 1, 2, 6, 4, 7, 5).reshape(
            batch, 3, frames * IMAGES_PER_FRAME, rows * PIXELS, columns * PIXELS)
        # The first latent frame encodes one image, not four.
        return pictures[:, :, IMAGES_PER_FRAME - 1:]


class DecoderTraining(nn.Module):
    """
    The decoder, with a frozen encoder.

    It decodes all views side by side, as predicted video is decoded.
    """

    def __init__(self, settings: VideoVaeSettings, vae: AutoencoderKLWan):
        super().__init__()
        self.settings = settings
        self.vae = vae
        vae.requires_grad_(False)
        for part in (vae.decoder, vae.post_quant_conv):
            part.requires_grad_(True)

    def forward(
        self, task: str, images: Tensor, marked: Tensor, places: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the loss, `total`; arguments as those of `EncoderTraining`."""
        with torch.no_grad():
            latents = self.vae.encode(images.flatten(0, 1)).latent_dist.mode()
            latents = side_by_side(latents.unflatten(0, images.shape[:2]))
            # Noise, because the decoder will be used on predicted latents.
            latents = latents + LATENT_NOISE * latents.std() * torch.randn(
                latents.shape, generator=generator, device=latents.device)
        video = self.vae.decode(latents, return_dict=False)[0]
        loss = image_loss(
            video, side_by_side(images), side_by_side(marked), self.settings.marked_weight)
        return {'total': loss, 'picture': loss}


def side_by_side(views: Tensor) -> Tensor:
    """Return [B, ..., H, V * W] of views [B, V, ..., H, W]."""
    return torch.cat(views.unbind(1), -1)


def image_loss(video: Tensor, images: Tensor, marked: Tensor, marked_weight: float) -> Tensor:
    """
    Return the mean error of images plus `marked_weight` times that of their marked pixels.

    The marked pixels of an image are averaged first, so that their number has no effect.

    :param video: [B, 3, T, H, W], as `images`; `marked` is [B, T, H, W] bool.
    """
    error = (video - images).abs().mean(1)  # [B, T, H, W]
    marks = marked.float()
    inside = (error * marks).sum((-1, -2)) / marks.sum((-1, -2)).clamp_min(1)
    return error.mean() + marked_weight * inside.mean()


def features(latents: Tensor) -> Tensor:
    """Return the latents [B, V, C, F, h, w] of all views as [B, F, V * C * h * w]."""
    return latents.permute(0, 3, 1, 2, 4, 5).flatten(2)


def sample_clips(
    footage: Footage, clips: int, images: int, rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw clips: images, marks and positions with the shapes of `EncoderTraining.forward`."""
    pictures, marks, places = [], [], []
    for _ in range(clips):
        which = rng.integers(len(footage.images))
        first = rng.integers(len(footage.images[which]) - images + 1)
        span = slice(first, first + images)
        pictures.append(footage.images[which][span])
        marks.append(footage.marked[which][span])
        places.append(footage.places[which][span][::IMAGES_PER_FRAME])
    return (
        torch.from_numpy(np.stack(pictures)).permute(0, 2, 5, 1, 3, 4).float() / 127.5 - 1,
        torch.from_numpy(np.stack(marks)).transpose(1, 2),
        torch.from_numpy(np.stack(places)))


def train_encoder(
    footage: Sequence[Footage], settings: VideoVaeSettings, folder: Path, seed: int,
    device: torch.device, stop: Stop, report: Report,
) -> bool:
    """
    Train the encoder until the last step, or until `stop`; resume from the folder's state.

    At the end the EMA weights, rounded to bfloat16, are in `folder`/vae, with a decoder that is
    not trained yet and latents that are not normalized yet.

    :param report: receives the figures of every 20th step.
    :returns: whether it is done.
    :raises ValueError: the state is damaged, or a recording is shorter than a clip.
    """
    torch.manual_seed(seed)
    training = EncoderTraining(settings, footage).to(device)
    if not _train(training, footage, settings, settings.steps, folder / 'encoder.pt', seed,
                  stop, report):
        return False
    save_vae(training.vae, folder / 'vae')
    return True


def train_decoder(
    footage: Sequence[Footage], settings: VideoVaeSettings, folder: Path, seed: int,
    device: torch.device, stop: Stop, report: Report,
) -> bool:
    """
    Train the decoder of `folder`/vae on the latents of its encoder, which does not change.

    Parameters and results as those of `train_encoder`.
    """
    vae = AutoencoderKLWan.from_pretrained(
        str(folder / 'vae'), torch_dtype=torch.float32, low_cpu_mem_usage=False)
    training = DecoderTraining(settings, vae).to(device)
    if not _train(training, footage, settings, settings.decoder_steps, folder / 'decoder.pt',
                  seed + 1, stop, report):
        return False
    save_vae(training.vae, folder / 'vae')
    return True


def save_vae(vae: AutoencoderKLWan, folder: Path) -> None:
    """Write a video VAE in the public layout, its weights rounded to bfloat16."""
    # diffusers wraps `to` so that its type loses `self`.
    vae.to(torch.bfloat16).save_pretrained(str(folder))  # type: ignore[arg-type]


def _train(
    training: nn.Module, footage: Sequence[Footage], settings: VideoVaeSettings, steps: int,
    path: Path, seed: int, stop: Stop, report: Report,
) -> bool:
    for each in footage:
        shortest = min(map(len, each.images))
        if shortest < settings.images:
            raise ValueError(
                f'{each.task}: a recording of {shortest} images; codec.images is '
                f'{settings.images}')
    ema = EMA(training, settings.ema)
    weights = [weight for weight in training.parameters() if weight.requires_grad]
    device = weights[0].device
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    state, step = load_state(path, device), 0
    if state is not None:
        training.load_state_dict(state['weights'])
        optimizer.load_state_dict(state['optimiser'])
        ema.tensors, step = state['mean'], state['step']

    def save() -> None:
        save_state(path, {
            'weights': training.state_dict(), 'optimiser': optimizer.state_dict(),
            'mean': ema.tensors, 'step': step})

    while step < steps and not stop():
        # Seeded by the index of the step, so that a resumed run draws the same clips.
        rng = np.random.default_rng([seed, step])
        generator = torch.Generator(device).manual_seed(int(rng.integers(2 ** 62)))
        each = footage[step % len(footage)]
        batch = sample_clips(each, settings.clips, settings.images, rng)
        rate = warmup_cosine(step, settings.warm_up, steps)
        for group in optimizer.param_groups:
            group['lr'] = settings.learning_rate * rate
        losses = training(each.task, *(part.to(device) for part in batch), generator)
        optimizer.zero_grad(set_to_none=True)
        losses['total'].backward()
        norm = nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        step += 1
        ema.update(training, step)
        if step % REPORT_EVERY < len(footage) or step == steps:
            report({'step': step, 'steps': steps, 'task': each.task, 'gradient': norm.item(),
                    **{name: value.item() for name, value in losses.items()}})
        if step % SAVE_EVERY == 0:
            save()
    save()
    ema.copy_to(training)
    return step >= steps


def reconstruction_psnr(
    vae: AutoencoderKLWan, images: Tensor, marked: Tensor,
) -> Mapping[str, float]:
    """
    Return the peak signal-to-noise ratio of reconstructions, dB, of all and of marked pixels.

    :param images: [B, V, 3, T, H, W] in [-1, 1] of V views; `marked` is [B, V, T, H, W] bool.
    """
    with torch.inference_mode():
        latents = vae.encode(images.flatten(0, 1)).latent_dist.mode()
        views = latents.unflatten(0, images.shape[:2])
        video = vae.decode(side_by_side(views), return_dict=False)[0]
    error = (video.clamp(-1, 1) - side_by_side(images)) ** 2 / 4  # of values from 0 to 1
    inside = side_by_side(marked)[:, None].expand_as(error)

    def ratio(values: Tensor) -> float:
        return float(-10 * torch.log10(values.mean().clamp_min(1e-10)))

    return {'all': ratio(error), 'marked': ratio(error[inside])}
