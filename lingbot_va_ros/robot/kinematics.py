"""Forward and inverse kinematics of one arm, from the embodiment's URDF, with pinocchio."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from lingbot_va_ros.robot.pose_error import error_term
from lingbot_va_ros.robot.poses import described, PoseError
from lingbot_va_ros.specs.embodiment import Arm, Embodiment

# The iteration ends below this norm of the error in m and rad, far below the precision of an arm.
TOLERANCE = 1e-8
# The largest step of a joint between two actions (rad; m for prismatic joints). A pose that needs
# more is on another branch of the inverse kinematics, or beyond a singularity.
LARGEST_STEP = 0.6
STEP_OF_ITERATION = 0.3  # rad or m; the linearization is inaccurate beyond
ITERATIONS = 60
WAYPOINTS = 24  # on the line to the first pose of a chunk, if that is far
# Damping (Levenberg-Marquardt) in units of the squared error, and bounds of its factor.
FIRST_DAMPING = 1e-2
LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e6
FLOOR = 1e-12  # damping that keeps a singular system solvable


class OutOfReach(PoseError):
    """An arm cannot take a pose; the message names arm, action, pose and remaining distance."""


@dataclass(frozen=True)
class Solution:
    """
    A solution: joint positions [n], and the remaining error of the pose in m and rad.

    :param reached: whether the pose counts as reached.
    """

    joints: np.ndarray
    translation_left: float
    rotation_left: float
    reached: bool


@dataclass(frozen=True)
class FollowedPoses:
    """
    Joint positions [m, n] for consecutive poses, and the largest error that is left of them.

    :param translation_left: m over the axes that count.
    :param rotation_left: rad over the axes that count.
    """

    joints: np.ndarray
    translation_left: float = 0.0
    rotation_left: float = 0.0


class ArmKinematics:
    """
    The kinematics of one arm from its base frame to its tool frame.

    Joints are in the arm's own order, [n] in rad (m for prismatic joints); poses are homogeneous
    matrices [4, 4] of the tool frame in the base frame, in m. All other joints of the URDF are
    held at 0; the chain from base to tool does not contain them.

    :raises ValueError: frames are missing, or the chain between them does not consist of the arm's
        joints.
    """

    def __init__(self, embodiment: Embodiment, arm: Arm):
        self.arm = arm
        self.side = arm.side
        base, tool = arm.base_frame or embodiment.base_frame, arm.tool_frame
        if not base or not tool:
            missing = [name for name, frame in (('base_frame', base), ('tool_frame', tool))
                       if not frame]
            raise ValueError(
                f"embodiment '{embodiment.name}': the {arm.side} arm has no "
                f'{" and no ".join(missing)}; end-effector poses need both, as links of the URDF')
        columns = [embodiment.joints.index(joint) for joint in arm.joints]
        self.lower = embodiment.limits.lower[columns]
        self.upper = embodiment.limits.upper[columns]
        self._error = error_term(arm.pose_weights)
        self._model = _reduced_model(embodiment.urdf, arm, base, tool)
        self._data = self._model.createData()
        self._tool = _link(self._model, tool)
        # The order of joints in pinocchio is that of the tree, not that of the embodiment.
        self._place = np.array([
            self._model.joints[self._model.getJointId(joint)].idx_q for joint in arm.joints])
        pin.framesForwardKinematics(self._model, self._data, pin.neutral(self._model))
        self._from_base = self._data.oMf[_link(self._model, base)].inverse()
        self._to_base = self._from_base.inverse()

    def forward(self, joints: np.ndarray) -> np.ndarray:
        """Return the pose [4, 4] of the tool frame in the base frame."""
        pose: np.ndarray = (
            self._from_base * self._tool_at(np.asarray(joints, dtype=np.float64))).homogeneous
        return pose

    def place(self, joints: np.ndarray) -> np.ndarray:
        """Return the position of the tool frame in the base frame, [3] in m."""
        position: np.ndarray = self._from_base.act(self._tool_at(joints).translation)
        return position

    def follow(self, poses: Sequence[np.ndarray] | np.ndarray, start: np.ndarray) -> np.ndarray:
        """
        Return joint positions [m, n] for the consecutive poses [m, 4, 4] of a chunk.

        :param start: joint positions [n] before the chunk.
        :raises OutOfReach: see `solve`.
        """
        return self.solve(poses, start).joints

    def solve(self, poses: Sequence[np.ndarray] | np.ndarray, start: np.ndarray) -> FollowedPoses:
        """
        Find joint positions for the consecutive poses [m, 4, 4] of a chunk.

        The iteration for the first pose is seeded with `start`, along a straight line of poses if
        the pose is far. The iteration for each other pose is seeded with the solution before it,
        so that the arm stays on its branch. All rows are inside the limits; a joint that reaches
        its limit stays there while the others move on. An arm with pose weights takes the poses
        of least weighted error near by.

        :param start: joint positions [n] before the chunk.
        :raises OutOfReach: a pose cannot be reached, or only with a jump; the message names the
            first such pose.
        """
        rows = np.empty((len(poses), len(self.lower)))
        at = np.clip(np.asarray(start, dtype=np.float64), self.lower, self.upper)
        step = np.zeros_like(at)
        translation_left = rotation_left = 0.0
        for number, pose in enumerate(poses):
            target = self._to_base * pin.SE3(pose)
            # The last step predicts the next one, which saves an iteration.
            found = self._seek(target, np.clip(at + step, self.lower, self.upper))
            far = False
            if number == 0 and self._jumps(found, at):
                led = self._approach(target, at)
                far = led.reached
                found = led if far or not found.reached else found
            elif self._jumps(found, at):
                found = self._seek(target, at)
            self._check(found, at, pose, f'action {number + 1} of {len(poses)}', far)
            if number > 0 and self._error.extrapolates:
                step = found.joints - at
            rows[number] = at = found.joints
            translation_left = max(translation_left, found.translation_left)
            rotation_left = max(rotation_left, found.rotation_left)
        return FollowedPoses(rows, translation_left, rotation_left)

    def _tool_at(self, joints: np.ndarray) -> pin.SE3:
        q = np.empty_like(joints)
        q[self._place] = joints
        pin.framesForwardKinematics(self._model, self._data, q)
        return self._data.oMf[self._tool]

    def _error_and_jacobian(
        self, joints: np.ndarray, target: pin.SE3,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the error to the target and its Jacobian [..., n], as the arm's poses count."""
        q = np.empty_like(joints)
        q[self._place] = joints
        pin.computeJointJacobians(self._model, self._data, q)
        left = pin.updateFramePlacement(self._model, self._data, self._tool).actInv(target)
        jacobian = pin.getFrameJacobian(
            self._model, self._data, self._tool, pin.ReferenceFrame.LOCAL)
        return self._error.linearized(left, jacobian[:, self._place])

    def _seek(self, target: pin.SE3, start: np.ndarray) -> Solution:
        """
        Solve for a pose by damped least squares from `start`, inside the limits.

        Levenberg-Marquardt with damping in proportion to the squared error (Sugihara 2011,
        "Solvability-unconcerned inverse kinematics by the Levenberg-Marquardt method"), which is
        robust at singularities and still converges quadratically. A joint whose step would leave
        its limits is fixed at the limit, and the step of the others is computed again.
        """
        joints, factor = start, FIRST_DAMPING
        error, jacobian = self._error_and_jacobian(joints, target)
        cost = error @ error
        for _ in range(ITERATIONS):
            if cost < TOLERANCE * TOLERANCE:
                break
            step = self._step(error, jacobian, joints, factor * cost + FLOOR)
            if np.abs(step).max() < 1e-12:
                break  # at a limit or at the edge of the workspace: no step reduces the error
            tried = np.clip(joints + step, self.lower, self.upper)
            error_there, jacobian_there = self._error_and_jacobian(tried, target)
            cost_there = error_there @ error_there
            if cost_there < cost:
                slow = cost_there > self._error.slow * cost
                joints, error, jacobian, cost = tried, error_there, jacobian_there, cost_there
                if slow and factor <= LEAST_DAMPING:
                    break
                factor = max(factor / 10, LEAST_DAMPING)
            elif factor >= MOST_DAMPING:
                break
            else:
                factor = min(factor * 30, MOST_DAMPING)
        translation, rotation = self._error.remaining(self._tool_at(joints).actInv(target))
        return Solution(
            joints, translation, rotation,
            translation <= self._error.translation and rotation <= self._error.rotation)

    def _step(
        self, error: np.ndarray, jacobian: np.ndarray, joints: np.ndarray, damping: float,
    ) -> np.ndarray:
        """Return the damped step [n] towards the pose, inside the limits."""
        lowest, highest = self.lower - joints, self.upper - joints
        step = np.zeros_like(joints)
        free = np.ones(len(joints), dtype=bool)
        while free.any():
            rest = error - jacobian[:, ~free] @ step[~free]
            some = jacobian[:, free]
            normal = some.T @ some
            normal.flat[::len(normal) + 1] += damping
            step[free] = np.linalg.solve(normal, some.T @ rest)
            outside = free & ((step < lowest) | (step > highest))
            if not outside.any():
                break
            step[outside] = np.clip(step[outside], lowest[outside], highest[outside])
            free &= ~outside
        largest = float(np.abs(step).max())
        return step * min(1.0, STEP_OF_ITERATION / max(largest, 1e-12))

    def _approach(self, target: pin.SE3, start: np.ndarray) -> Solution:
        """Solve for a far pose along a straight line of poses, to stay on the current branch."""
        origin = self._tool_at(start).copy()
        joints = start
        for part in np.linspace(0.0, 1.0, WAYPOINTS + 1)[1:]:
            found = self._seek(pin.SE3.Interpolate(origin, target, part), joints)
            joints = found.joints
        return found

    def _jumps(self, found: Solution, before: np.ndarray) -> bool:
        return not found.reached or bool(np.abs(found.joints - before).max() > LARGEST_STEP)

    def _check(
        self, found: Solution, before: np.ndarray, pose: np.ndarray, action: str, may_be_far: bool,
    ) -> None:
        where = f'{self.side} arm, {action}: the pose {described(pose)}'
        if not found.reached:
            raise OutOfReach(
                f'{where} is out of reach; {found.translation_left:.4f} m and '
                f'{found.rotation_left:.4f} rad are left{self._at_limits(found.joints)}')
        step = np.abs(found.joints - before)
        if step.max() > LARGEST_STEP and not may_be_far:
            joint = int(step.argmax())
            raise OutOfReach(
                f'{where} is reached only with a jump: joint {self.arm.joints[joint]} would move '
                f'{step[joint]:.3f} in one action, at most {LARGEST_STEP} is allowed')

    def _at_limits(self, joints: np.ndarray) -> str:
        stuck = [
            name for name, position, lower, upper in zip(
                self.arm.joints, joints, self.lower, self.upper)
            if position <= lower or position >= upper]
        return f', {", ".join(stuck)} at the limit' if stuck else ''


def _reduced_model(urdf: Path, arm: Arm, base: str, tool: str) -> pin.Model:
    """Return the model in which only the arm's joints move."""
    model = pin.buildModelFromXML(without_endless_joints(urdf))
    tip = model.frames[_link(model, tool)].parentJoint
    root = model.frames[_link(model, base)].parentJoint
    chain = {model.names[joint] for joint in model.supports[tip]} ^ {
        model.names[joint] for joint in model.supports[root]}
    if chain != set(arm.joints):
        beside = ', '.join(sorted(chain - set(arm.joints))) or 'none'
        outside = ', '.join(sorted(set(arm.joints) - chain)) or 'none'
        raise ValueError(
            f'{urdf.name}: between {base} and {tool} there must be exactly the joints '
            f'of the {arm.side} arm; other joints in between: {beside}; missing: {outside}')
    held = [joint for joint in range(1, model.njoints) if model.names[joint] not in arm.joints]
    return pin.buildReducedModel(model, held, pin.neutral(model))


def _link(model: pin.Model, name: str) -> int:
    """Return the index of a link's frame; a joint may have the same name."""
    return int(model.getFrameId(name, pin.FrameType.BODY))


def without_endless_joints(urdf: Path) -> str:
    """
    Return the URDF with continuous joints as revolute ones.

    pinocchio represents a continuous joint by cosine and sine; the embodiment gives it limits.
    """
    robot = ElementTree.parse(urdf).getroot()
    for joint in robot.findall('joint'):
        if joint.get('type') == 'continuous':
            joint.set('type', 'revolute')
            limit = joint.find('limit')
            limit = ElementTree.SubElement(joint, 'limit') if limit is None else limit
            for key, value in (('lower', '-1e3'), ('upper', '1e3')):
                limit.set(key, value)
            for key in ('effort', 'velocity'):
                limit.set(key, limit.get(key, '1e3'))
    return ElementTree.tostring(robot, encoding='unicode')
