"""A robot of two joints and a gripper, for tests of the mux without ROS."""

from pathlib import Path

import numpy as np

from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Arm, Embodiment, Gripper, JointLimits

JOINTS = ('j1', 'j2', 'grip')
LIMITS = JointLimits(
    lower=np.array([-2.0, -1.0, 0.0]), upper=np.array([2.0, 1.0, 0.04]),
    velocity=np.array([2.0, 2.0, 0.15]), acceleration=np.array([10.0, 10.0, 1.0]),
    jerk=np.full(3, 100.0))
ROBOT = Embodiment(
    name='two', joints=JOINTS, limits=LIMITS, home=np.array([0.5, -0.5, 0.04]),
    arms=(Arm('left', ('j1', 'j2'), Gripper('grip', 0.04, 0.0)),),
    controllers=(Controller('c', JOINTS, 'trajectory'),), cameras={}, urdf=Path('none.urdf'))
PERIOD = 10_000_000
START = np.array([0.1, -0.2, 0.02])
