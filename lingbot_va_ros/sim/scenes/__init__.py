"""
The scenes: objects on the table and the rule of success, one module per task.

A scene is a class without arguments whose objects are a `Scene`.

The world frame lies in the table top: x away from the robot, y left, z up, metres.
"""

from collections.abc import Callable

from lingbot_va_ros.sim.scenes.open_boxes import OpenBoxesScene
from lingbot_va_ros.sim.scenes.state import Scene, TaskState
from lingbot_va_ros.sim.scenes.table import TableScene
from lingbot_va_ros.sim.scenes.wipe_plate import WipePlateScene

SCENES: dict[str, Callable[[], Scene]] = {
    'table': TableScene, 'wipe_plate': WipePlateScene, 'open_boxes': OpenBoxesScene}

__all__ = ['SCENES', 'Scene', 'TaskState']
