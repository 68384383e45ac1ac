"""The shapes of a robot and its cell, and the distances between them, with pinocchio and coal."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pinocchio as pin

from lingbot_va_ros.robot.kinematics import without_endless_joints
from lingbot_va_ros.specs.collision import Box, Collision, name_pair, Plane
from lingbot_va_ros.specs.embodiment import Embodiment
from lingbot_va_ros.specs.robot_description import find_package

try:
    import coal
except ImportError:  # its name before version 3, as on Humble
    import hppfcl as coal

_PACKAGE_URI = 'package://'
_FILE_URI = 'file://'


@dataclass(frozen=True)
class Near:
    """
    Two bodies, their distance in m (below 0: so deep in each other), and the nearest points.

    :param bodies: names of two links, or of a link and an obstacle.
    :param points: [2, 3], one on each, in `CollisionModel.frame`, m.
    """

    bodies: tuple[str, str]
    distance: float
    points: np.ndarray


class CollisionModel:
    """
    The shapes of an embodiment, and the pairs of them that are checked.

    A pair is not checked where its links are neighbors (nothing but links without shape between
    them), where nothing but one gripper moves them against each other, where the SRDF or the
    embodiment file says so, and where both are nearer than the stop distance at home. Meshes stand
    for their convex hull. Joints that are neither the embodiment's nor mimic one of them are held
    at 0.

    :raises ValueError: there is no collision section, a mesh is missing or unreadable, or nothing
        is left to check.
    """

    def __init__(self, embodiment: Embodiment) -> None:
        if embodiment.collision is None:
            raise ValueError('the embodiment has no section collision')
        self.spec: Collision = embodiment.collision
        robot = ElementTree.fromstring(without_endless_joints(embodiment.urdf))
        text = _with_mesh_paths(robot, embodiment.urdf)
        self.model = pin.buildModelFromXML(text)
        self.shapes = _shapes(self.model, text)
        self._spread, self._rest = _spread(self.model, robot, embodiment.joints)
        # The frame of the obstacles and of the nearest points.
        self.frame = embodiment.base_frame or self.model.frames[1].name
        data = self.model.createData()
        pin.framesForwardKinematics(self.model, data, self._rest)
        self.to_frame = data.oMf[_link(self.model, self.frame)].inverse()
        self._add_obstacles()
        self.names = [self._name(shape) for shape in self.shapes.geometryObjects]
        self.shapeless_arms = tuple(
            arm.side for arm in embodiment.arms
            if not any(self._moves(shape, arm.joints) for shape in self.shapes.geometryObjects))
        grippers = [arm.gripper.joint for arm in embodiment.arms if arm.gripper]
        candidates, levers = self._candidates(
            _neighbors(robot), np.isin(embodiment.joints, grippers))
        for one, other in candidates:
            self.shapes.addCollisionPair(pin.CollisionPair(one, other))
        self.bodies = [(self.names[one], self.names[other]) for one, other in candidates]
        # By how much (m) the distance of a pair changes at most while a joint moves by 1, [P, J].
        self.levers = np.array(levers).reshape(len(candidates), len(embodiment.joints))
        self.home = embodiment.home
        self.at_home, self.touching_at_home = self._leave_out_touching(embodiment.home)
        if not self.bodies:
            raise ValueError(
                f'{embodiment.urdf.name} has no two links with a collision shape to check')

    def remarks(self) -> list[str]:
        """Return what is not checked though nobody has said so, a line each."""
        return [
            *(f'{near.bodies[0]} and {near.bodies[1]} are {near.distance:.3f} m apart at home, '
              'less than stop_distance: they are not checked for collisions'
              for near in self.touching_at_home),
            *(f'no link of the {side} arm has a collision shape in the URDF: it is not checked'
              for side in self.shapeless_arms)]

    def positions(self, q: np.ndarray) -> np.ndarray:
        """Return the positions of all joints of the URDF for the embodiment's [J]."""
        return np.asarray(self._rest + self._spread @ q)

    def _add_obstacles(self) -> None:
        base = self.to_frame.inverse()
        for obstacle in self.spec.environment:
            self.shapes.addGeometryObject(_obstacle(obstacle, base))

    def _name(self, shape: pin.GeometryObject) -> str:
        # An obstacle hangs on no link.
        if shape.parentFrame == 0:
            return str(shape.name)
        return str(self.model.frames[shape.parentFrame].name)

    def _moves(self, shape: pin.GeometryObject, joints: Iterable[str]) -> bool:
        chain = {self.model.names[joint] for joint in self.model.supports[shape.parentJoint]}
        return not chain.isdisjoint(joints)

    def _candidates(
        self, neighbors: set[tuple[str, str]], is_gripper: np.ndarray,
    ) -> tuple[list[tuple[int, int]], list[np.ndarray]]:
        """Return the pairs of shapes that a joint moves against each other, and their levers."""
        objects = self.shapes.geometryObjects
        reaches = [_reaches(self.model, shape) for shape in objects]
        excluded = neighbors | self.spec.disabled | self.spec.ignored
        pairs, levers = [], []
        for one in range(len(objects)):
            for other in range(one + 1, len(objects)):
                names = self.names[one], self.names[other]
                if names[0] == names[1] or name_pair(*names) in excluded:
                    continue
                # A joint that carries both changes nothing between them.
                moves_one = (reaches[one] > 0.0) ^ (reaches[other] > 0.0)
                lever = np.where(moves_one, reaches[one] + reaches[other], 0.0) @ np.abs(
                    self._spread)
                if np.any(lever[~is_gripper] > 0.0) or np.count_nonzero(lever) > 1:
                    pairs.append((one, other))
                    levers.append(lever)
        return pairs, levers

    def _leave_out_touching(self, home: np.ndarray) -> tuple[np.ndarray, tuple[Near, ...]]:
        """Return the distances [P] at home of the pairs that are left, and what touches there."""
        found = Distances(self)
        distances = found.at(home)
        kept = distances >= self.spec.stop_distance
        touching = tuple(found.near(int(pair)) for pair in np.flatnonzero(~kept))
        for pair in reversed(np.flatnonzero(~kept)):
            del self.bodies[pair]
            self.shapes.removeCollisionPair(self.shapes.collisionPairs[int(pair)])
        self.levers = self.levers[kept]
        return distances[kept], touching


class Distances:
    """The distances of a model's pairs; for one thread at a time."""

    def __init__(self, model: CollisionModel) -> None:
        self._model = model
        self._data = model.model.createData()
        self._shapes = model.shapes.createData()
        self._all = range(len(model.bodies))

    def at(self, q: np.ndarray, pairs: Iterable[int] | None = None) -> np.ndarray:
        """
        Return the distances of some pairs, by default of all, m.

        :param q: positions [J].
        """
        model = self._model
        pin.updateGeometryPlacements(
            model.model, self._data, model.shapes, self._shapes, model.positions(q))
        return np.array([
            pin.computeDistance(model.shapes, self._shapes, pair).min_distance
            for pair in (self._all if pairs is None else pairs)])

    def near(self, pair: int) -> Near:
        """Return what the last call of `at` has found for a pair."""
        result = self._shapes.distanceResults[pair]
        points = [self._model.to_frame.act(point) for point in (
            result.getNearestPoint1(), result.getNearestPoint2())]
        return Near(self._model.bodies[pair], float(result.min_distance), np.array(points))


def _link(model: pin.Model, name: str) -> int:
    """Return the index of a link's frame; a joint may have the same name."""
    return int(model.getFrameId(name, pin.FrameType.BODY))


def _with_mesh_paths(robot: ElementTree.Element, urdf: Path) -> str:
    """
    Return the URDF with the absolute paths of its collision meshes.

    :raises ValueError: meshes are missing; the message is one line.
    """
    missing = []
    for link in robot.findall('link'):
        for mesh in link.findall('collision/geometry/mesh'):
            name = mesh.get('filename', '')
            path = _mesh_path(name, urdf)
            if path is None or not path.is_file():
                missing.append(f"{name or 'one without filename'} of link '{link.get('name')}'")
            else:
                mesh.set('filename', str(path))
    if missing:
        more = f' (and {len(missing) - 1} more)' if len(missing) > 1 else ''
        raise ValueError(f'{urdf.name}: collision mesh {missing[0]} does not exist{more}')
    return ElementTree.tostring(robot, encoding='unicode')


def _mesh_path(name: str, urdf: Path) -> Path | None:
    if name.startswith(_PACKAGE_URI):
        package, _, inside = name.removeprefix(_PACKAGE_URI).partition('/')
        folder = find_package(package)
        return None if folder is None else folder / inside
    return urdf.parent / name.removeprefix(_FILE_URI) if name else None


def _shapes(model: pin.Model, text: str) -> pin.GeometryModel:
    """Return the collision shapes of a URDF, meshes as their convex hull."""
    try:
        shapes = pin.buildGeomFromUrdfString(model, text, pin.GeometryType.COLLISION)
        for shape in shapes.geometryObjects:
            if isinstance(shape.geometry, coal.BVHModelBase):
                shape.geometry.buildConvexHull(True, 'Qt')
                shape.geometry = shape.geometry.convex
    except (ValueError, RuntimeError) as error:
        raise ValueError(f'collision shapes: {" ".join(str(error).split())}') from None
    return shapes


def _obstacle(obstacle: Box | Plane, base: pin.SE3) -> pin.GeometryObject:
    """Return the shape of an obstacle that is given in the frame `base`."""
    if isinstance(obstacle, Box):
        shape, place = coal.Box(*obstacle.size), pin.SE3(
            pin.rpy.rpyToMatrix(obstacle.rpy), obstacle.xyz)
    else:
        shape = coal.Halfspace(obstacle.normal, obstacle.offset)
        place = pin.SE3.Identity()
    return pin.GeometryObject(obstacle.name, 0, 0, base * place, shape)


def _spread(
    model: pin.Model, robot: ElementTree.Element, joints: tuple[str, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """
    Return the matrix [n, J] and the vector [n] that make all joint positions of [J].

    :raises ValueError: a joint has more than one degree of freedom.
    """
    if model.nq != model.njoints - 1:
        raise ValueError('the URDF has a joint with more than one degree of freedom')
    row = {model.names[joint]: model.joints[joint].idx_q for joint in range(1, model.njoints)}
    spread, rest = np.zeros((model.nq, len(joints))), np.zeros(model.nq)
    for column, name in enumerate(joints):
        spread[row[name], column] = 1.0
    for joint in robot.findall('joint'):
        mimic = joint.find('mimic')
        if mimic is None or joint.get('name') not in row or mimic.get('joint') not in row:
            continue
        mine = row[joint.get('name', '')]
        spread[mine] = float(mimic.get('multiplier', 1.0)) * spread[row[mimic.get('joint', '')]]
        rest[mine] = float(mimic.get('offset', 0.0))
    return spread, rest


def _reaches(model: pin.Model, shape: pin.GeometryObject) -> np.ndarray:
    """
    Return how far (m) a point of a shape moves at most while a joint moves by 1, [n].

    For a joint that turns it is the distance of its origin from the farthest point of the shape,
    with all links between them stretched out.
    """
    reaches = np.zeros(model.nv)
    if shape.parentJoint == 0:
        return reaches
    shape.geometry.computeLocalAABB()
    center = shape.placement.act(shape.geometry.aabb_center)
    far = float(np.linalg.norm(center) + shape.geometry.aabb_radius)
    for joint in reversed(list(model.supports[shape.parentJoint])[1:]):
        row = model.joints[joint].idx_v
        slides = 'P' in model.joints[joint].shortname().removeprefix('JointModel')
        reaches[row] = 1.0 if slides else far
        far += float(np.linalg.norm(model.jointPlacements[joint].translation))
        if slides:
            far += float(max(
                abs(model.lowerPositionLimit[row]), abs(model.upperPositionLimit[row])))
    return reaches


def _neighbors(robot: ElementTree.Element) -> set[tuple[str, str]]:
    """Return the pairs of links with shapes between which there is no other link with a shape."""
    has_shape = {
        link.get('name', ''): link.find('collision') is not None for link in robot.findall('link')}
    parents = {
        joint.find('child').get('link', ''): joint.find('parent').get('link', '')  # type: ignore
        for joint in robot.findall('joint')}
    pairs = set()
    for link, shaped in has_shape.items():
        above = parents.get(link)
        while above is not None and not has_shape[above]:
            above = parents.get(above)
        if shaped and above is not None:
            pairs.add(name_pair(link, above))
    return pairs
