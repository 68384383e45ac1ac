"""
The scenes: objects on the table and the rule of success, one module per task.

A scene is a class without arguments whose objects have
- `add(spec, sides)`: put bodies into the world of the MjSpec, within reach of the arms `sides`
  (a tuple of 'left', 'right'). Called once, before the model is compiled.
- `reset(model, data, rng)`: place and paint them by the numpy generator. The robot stands at home
  and the data are fresh. Called at every reset.
- `after_step(model, data)`: watch the simulation, once a physics step.
- `state() -> TaskState`: how the task stands.

The world frame lies in the table top: x away from the robot, y left, z up, metres.
"""

from lingbot_va_ros.sim.scenes.open_boxes import OpenBoxesScene
from lingbot_va_ros.sim.scenes.state import TaskState
from lingbot_va_ros.sim.scenes.table import TableScene
from lingbot_va_ros.sim.scenes.wipe_plate import WipePlateScene

SCENES = {
    'table': TableScene, 'wipe_plate': WipePlateScene, 'open_boxes': OpenBoxesScene}

__all__ = ['SCENES', 'TaskState']
