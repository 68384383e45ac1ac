"""The error between a tool's pose and a commanded one that the inverse kinematics minimizes."""

from typing import Protocol

import numpy as np
import pinocchio as pin

from lingbot_va_ros.specs.pose_task import PoseWeights

# A pose with an error up to this counts as reached: at the edge of the workspace and at
# singularities convergence is slow, and a network's poses are noisier.
REACHED_TRANSLATION = 1e-3  # m
REACHED_ROTATION = 1e-2  # rad


class PoseErrorTerm(Protocol):
    """
    The error of a pose, as a vector to bring to zero.

    :param translation: m that may be left of a pose that counts as reached.
    :param rotation: rad that may be left of it.
    :param slow: the share of the squared error beyond which a step of the iteration is too small
        to go on.
    :param extrapolates: whether the last step of the joints predicts the next one.
    """

    translation: float
    rotation: float
    slow: float
    extrapolates: bool

    def linearized(self, left: pin.SE3, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """
        Return the error [m] and its derivative [m, n], of opposite sign, by the joints.

        :param left: the commanded pose in the tool frame.
        :param jacobian: [6, n] of the tool frame, in the tool frame.
        """

    def remaining(self, left: pin.SE3) -> tuple[float, float]:
        """Return the distances in m and rad over the axes that count."""


class FullPoseError:
    """The twist to the commanded pose: all six axes, for arms that can take every pose."""

    translation = REACHED_TRANSLATION
    rotation = REACHED_ROTATION
    slow = 0.9999
    extrapolates = True

    def linearized(self, left: pin.SE3, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the twist [6] in the tool frame to the pose, and its Jacobian [6, n]."""
        error = pin.log6(left).vector
        return error, pin.Jlog6(left.inverse()) @ jacobian

    def remaining(self, left: pin.SE3) -> tuple[float, float]:
        """Return the distances in m and rad to the pose."""
        return float(np.linalg.norm(left.translation)), float(
            np.linalg.norm(pin.log3(left.rotation)))


class WeightedPoseError:
    """
    Weighted distances along and rotations about the axes of the commanded tool frame.

    Translation and rotation are apart, unlike in a twist, whose translation depends on the
    rotation that is left: an arm that cannot turn its tool as commanded would then miss the
    position too.
    """

    # The squared error stays above 0 where a pose cannot be taken: most of it may be rotation
    # while the position still improves.
    slow = 1 - 1e-9
    # Where axes do not count, a motion that no pose asks for would go on for ever.
    extrapolates = False

    def __init__(self, task: PoseWeights):
        self.translation, self.rotation = task.translation, task.rotation
        weights = np.array(task.weights)
        self._moved, self._turned = weights[:3], weights[3:]
        self._counts = weights > 0

    def linearized(self, left: pin.SE3, jacobian: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the weighted error [6] and its Jacobian [6, n]."""
        to_target = left.rotation.T
        error = np.concatenate([
            self._moved * (to_target @ left.translation),
            self._turned * pin.log3(left.rotation)])
        derivative = np.concatenate([
            self._moved[:, None] * (to_target @ jacobian[:3]),
            self._turned[:, None] * (pin.Jlog3(to_target) @ jacobian[3:])])
        return error, derivative

    def remaining(self, left: pin.SE3) -> tuple[float, float]:
        """Return the distances in m and rad over the axes whose weight is not 0."""
        moved = (left.rotation.T @ left.translation)[self._counts[:3]]
        turned = pin.log3(left.rotation)[self._counts[3:]]
        return float(np.linalg.norm(moved)), float(np.linalg.norm(turned))


def error_term(task: PoseWeights | None) -> PoseErrorTerm:
    """Return the error of an arm: weighted where its embodiment file gives weights."""
    return FullPoseError() if task is None else WeightedPoseError(task)
