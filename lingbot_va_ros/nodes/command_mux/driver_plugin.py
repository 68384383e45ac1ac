"""
The interface of a Python class that drives joints whose driver takes no message of this package.

An embodiment file names the class: `kind: plugin`, `plugin: my_package.my_module:MyDriver`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
import importlib
import traceback
from typing import Any

import numpy as np
from rclpy.node import Node

from lingbot_va_ros.mux.report import Row
from lingbot_va_ros.nodes.command_mux.row_controllers import columns_of
from lingbot_va_ros.nodes.run import CannotStart
from lingbot_va_ros.specs.controllers import Controller
from lingbot_va_ros.specs.embodiment import Embodiment


class DriverPlugin(ABC):
    """
    Drives some joints by one row each tick, until the arm rests.

    An exception of any method means HOLD with its text and the plugin's name.

    :param node: command_mux; create publishers and clients of it here, in the constructor.
    :param joints: the driver's names of the joints, in the order of every row.
    :param options: of the embodiment file, as they stand there.
    """

    @abstractmethod
    def __init__(self, node: Node, joints: Sequence[str], options: Mapping[str, Any]) -> None:
        ...

    @abstractmethod
    def send(self, time_ns: int, positions: np.ndarray, velocities: np.ndarray) -> None:
        """
        Send one row; called in the thread of the ticks, which it holds up.

        :param time_ns: ROS time at which the row is due, that of the tick.
        :param positions: [J] float64, rad or m, inside the limits.
        :param velocities: [J] float64, rad/s or m/s, of the same motion; 0 at rest.
        """

    def fault(self) -> str:
        """
        Return in one line why the driver cannot be commanded, or an empty text.

        Asked 20 times a second in the executor's thread; nothing moves while there is a fault.
        """
        return ''

    def close(self) -> None:  # noqa: B027
        """Let go of the driver, after the last row."""


class Plugins:
    """
    All plugins of an embodiment.

    :param on_fault: gets in one line what a plugin could not do.
    :raises CannotStart: a plugin cannot be imported or made.
    """

    def __init__(
        self, node: Node, embodiment: Embodiment, on_fault: Callable[[str], None]) -> None:
        column_of = columns_of(embodiment)
        self._logger = node.get_logger()
        self._on_fault = on_fault
        self._plugins = [
            (controller.plugin, _make(node, controller),
             [column_of[name] for name in controller.joints])
            for controller in embodiment.controllers if controller.kind == 'plugin']

    def send(self, row: Row) -> None:
        """Hand on a row. For the thread of the ticks."""
        for name, plugin, columns in self._plugins:
            if not np.isfinite(row.positions[columns]).all():  # a held joint is unknown
                continue
            try:
                plugin.send(row.time_ns, row.positions[columns], row.velocities[columns])
            except Exception as error:
                self._tell(name, error)
                self._on_fault(_line(name, error))

    def faults(self) -> list[str]:
        """Return the faults of all plugins, a line each."""
        found = []
        for name, plugin, _ in self._plugins:
            try:
                fault = str(plugin.fault() or '')
                found += [f'plugin {name} ({fault})'] if fault else []
            except Exception as error:
                self._tell(name, error)
                found.append(_line(name, error))
        return found

    def close(self) -> None:
        """Close all plugins."""
        for name, plugin, _ in self._plugins:
            try:
                plugin.close()
            except Exception as error:
                self._tell(name, error)

    def _tell(self, name: str, error: Exception) -> None:
        self._logger.error(
            f'{_line(name, error)}\n{traceback.format_exc()}', throttle_duration_sec=1.0)


def _make(node: Node, controller: Controller) -> Any:
    module, _, name = controller.plugin.partition(':')
    try:
        made = getattr(importlib.import_module(module), name)(
            node, controller.driver_names, controller.options)
        for method in ('send', 'fault', 'close'):
            if not callable(getattr(made, method, None)):
                raise TypeError(f'it has no method {method}')
        return made
    except Exception as error:
        raise CannotStart(_line(controller.plugin, error)) from error


def _line(name: str, error: Exception) -> str:
    text = ' '.join(str(error).split())
    return f'plugin {name}: {type(error).__name__}: {text}'
