"""Builds the robot's MuJoCo model from its URDF, with position servos and cameras."""

import mujoco

from lingbot_va_ros.specs.embodiment import Embodiment

# Stiffness of the position servos, N m / rad, and damping, N m s / rad, by the joint's effort
# limit in N m: strong joints carry more inertia. Gripper: N/m and N s/m.
_SERVO = ((30.0, 5000.0, 100.0), (15.0, 1200.0, 20.0), (0.0, 300.0, 4.0))
_GRIPPER_SERVO = (1500.0, 40.0)
# Rotor inertia reflected through the gears to the joint, kg m² (kg for the fingers).
_ARMATURE = 0.05
_FINGER_ARMATURE = 0.1
# Vertical field of view, degrees, by the camera's place.
_FIELD_OF_VIEW = {'head': 48.0, 'wrist': 70.0}


def robot_spec(embodiment: Embodiment) -> mujoco.MjSpec:
    """
    Return the robot of the embodiment's URDF, to which a scene can be added.

    Every joint of the embodiment has a position servo of the same name, with the limits of the
    URDF. Every link `<name>_camera_optical_frame` of the URDF has a camera `<name>` (head,
    left_wrist, …).

    :raises ValueError: the URDF cannot be read.
    """
    spec = mujoco.MjSpec.from_file(str(embodiment.urdf))
    spec.modelname = embodiment.name
    spec.option.timestep = 0.002
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Elliptic friction cones and a high impedance ratio keep held objects from slipping slowly.
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    for body in spec.bodies:
        body.gravcomp = 1.0
    for equality in spec.equalities:
        # A stiff coupling of the fingers, so that both apply the same force.
        equality.solref[:2] = (0.004, 1.0)
    for name in embodiment.joints:
        _add_servo(spec, name)
    for body in list(spec.bodies):
        if body.name.endswith('_finger_1') or body.name.endswith('_finger_2'):
            _raise_friction(body)
        elif body.name.endswith('_camera_optical_frame'):
            _add_camera(body)
    for arm in embodiment.arms:
        # These pairs of links overlap by design; MuJoCo itself excludes parent and child only.
        for a, b in (('base_link', 'upper_arm'), ('upper_arm', 'forearm'), ('elbow', 'hand'),
                     ('forearm', 'hand'), ('finger_1', 'finger_2')):
            spec.add_exclude(bodyname1=f'{arm.side}_{a}', bodyname2=f'{arm.side}_{b}')
    return spec


def _add_servo(spec: mujoco.MjSpec, name: str) -> None:
    joint = spec.joint(name)
    if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
        stiffness, damping = _GRIPPER_SERVO
        joint.armature = _FINGER_ARMATURE
    else:
        effort = joint.actfrcrange[1]
        stiffness, damping = next(row[1:] for row in _SERVO if effort > row[0])
        joint.armature = _ARMATURE
    servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=stiffness, kv=damping)
    servo.ctrllimited = mujoco.mjtLimited.mjLIMITED_TRUE
    servo.ctrlrange = joint.range


def _raise_friction(finger) -> None:
    for geom in finger.geoms:
        geom.friction = (1.5, 0.02, 0.001)
        geom.condim = 4
        geom.solref = (0.004, 1.0)


def _add_camera(optical_frame) -> None:
    name = optical_frame.name.removesuffix('_camera_optical_frame')
    optical_frame.add_camera(
        name=name,
        # MuJoCo looks along -z with y up, an optical frame along z with y down.
        quat=(0.0, 1.0, 0.0, 0.0),
        fovy=_FIELD_OF_VIEW['head' if name == 'head' else 'wrist'])
