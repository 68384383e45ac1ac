"""
The scenes: objects on the table and the success criterion, one module for each task.

A scene is a class that implements `Scene` and is constructed without arguments.

The origin of the world frame is in the table top: x away from the robot, y left, z up, in m.
"""

from collections.abc import Callable

from lingbot_va_ros.sim.scenes.open_boxes import OpenBoxesScene
from lingbot_va_ros.sim.scenes.state import Scene, TaskState
from lingbot_va_ros.sim.scenes.table import TableScene
from lingbot_va_ros.sim.scenes.wipe_plate import WipePlateScene

SCENES: dict[str, Callable[[], Scene]] = {
    'table': TableScene, 'wipe_plate': WipePlateScene, 'open_boxes': OpenBoxesScene}

__all__ = ['SCENES', 'Scene', 'TaskState']
