"""Run the episodes of an evaluation in this process, in virtual time, without ROS."""

from collections.abc import Callable, Sequence

from lingbot_va_ros.cli.common.checkpoint import Checkpoint
from lingbot_va_ros.cli.eval.rows import Condition, EpisodeOutcome
from lingbot_va_ros.evaluation.rollout import EpisodeResult, run_episode
from lingbot_va_ros.policy.inference.device import choose_device, choose_dtype
from lingbot_va_ros.policy.inference.engine import Engine
from lingbot_va_ros.policy.inference.load import EngineConfig, load_engine
from lingbot_va_ros.sim.simulation import Simulation


def load(
    checkpoint: Checkpoint, device: str, noise_seed: int, progress: Callable[[str], None],
    dtype: str = 'auto', weights: str = 'full',
) -> Engine:
    """
    Load a checkpoint with the sampling settings of its policy file.

    :param device: `auto`, `cuda` or `cpu`.
    :param noise_seed: random seed of the initial noise of the predictions.
    :param progress: called with one line before each part.
    :raises ValueError: the checkpoint, the device or an option cannot be used.
    """
    policy, chosen = checkpoint.policy, choose_device(device)
    return load_engine(EngineConfig.of_policy(
        checkpoint.folder, policy, noise_seed, chosen, choose_dtype(dtype, chosen),
        weights=weights, warm_up=False), progress)


def run_row(
    engine: Engine, condition: Condition, seeds: Sequence[int], max_chunks: int, time_limit: float,
    each: Callable[[EpisodeOutcome], None], speed: float = 1.0,
) -> None:
    """
    Run one episode for each seed.

    :param max_chunks: executed chunks after which an episode ends; 0: the task's own limit.
    :param time_limit: simulated seconds after which an episode ends; 0: none.
    :param each: called with the outcome of each episode.
    :param speed: the speed scale, above 0 and at most 1.
    :raises ValueError: see `run_episode`.
    """
    policy = engine.policy
    simulation = Simulation(condition.task, 'left', seeds[0], policy.width, policy.height)
    try:
        for seed in seeds:
            each(outcome_of(run_episode(
                engine, condition.task, seed, condition.schedule, condition.memory,
                condition.latency_chunks, time_limit=time_limit or None,
                max_chunks=max_chunks or None, simulation=simulation, speed=speed)))
    finally:
        simulation.close()


def outcome_of(result: EpisodeResult) -> EpisodeOutcome:
    """Return the figures of an episode in the form of a row's outcomes."""
    return EpisodeOutcome(
        seed=result.seed, success=result.success, done=result.done, counts=result.counts,
        ended_by=result.ended_by, chunks=result.chunks, seconds=result.seconds,
        max_seam_step=result.seams.step, max_seam_acceleration=result.seams.acceleration,
        max_step=result.motion.step, max_acceleration=result.motion.acceleration,
        starved_ticks=result.starved_ticks, inference_seconds=result.inference_seconds)
