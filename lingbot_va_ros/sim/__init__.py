"""The simulated robot in MuJoCo, with its scenes, tasks, experts and controller. No ROS."""

from lingbot_va_ros.sim.gl import choose_gl

# MuJoCo reads MUJOCO_GL on import, so set it before any module here imports MuJoCo.
choose_gl()
