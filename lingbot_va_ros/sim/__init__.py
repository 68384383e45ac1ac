"""MuJoCo robot, scenes, tasks and controller; no ROS."""

from lingbot_va_ros.sim.gl import choose_gl

# MuJoCo looks at MUJOCO_GL when it is imported; every module here that imports it comes later.
choose_gl()
