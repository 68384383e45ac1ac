"""Declares the parameters of a node from a table and checks every value against it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

_TYPE_NAMES = {bool: 'a boolean', int: 'an integer', float: 'a floating-point number',
               str: 'a string'}
_EXPECTED = {bool: 'true or false', int: 'an integer', float: 'a number', str: 'a string'}


class WrongParameter(ValueError):
    """A parameter has a wrong type or value; the message is one line that names it."""


@dataclass(frozen=True)
class NodeParameter:
    """
    One row of a parameter table.

    The type of `default` is the type of the parameter. A parameter with a float default takes
    integers too: `control_rate:=50` is an integer on the command line and means 50.0.
    """

    name: str
    default: bool | int | float | str
    description: str
    least: float | None = None
    greatest: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False

    def fault(self, value: Any) -> str:
        """Return the reason, in one line, why `value` is rejected, or ''."""
        kind = type(self.default)
        # bool is a subclass of int, but true is not accepted as 1.
        if type(value) is not kind and not (kind is float and type(value) is int):
            given = 'not set' if value is None else _TYPE_NAMES.get(type(value), 'an array')
            line = (f'parameter {self.name} is {_shown(value)} ({given}); expected '
                    f'{_EXPECTED[kind]}')
            if kind is str:
                # YAML parses no, on, 1.5 … as booleans and numbers.
                line += f"""; quote it for YAML: -p '{self.name}:="..."'"""
            return line
        number: Any = value  # only numbers have bounds
        if self.least is not None and not self.least <= number:
            return f'parameter {self.name} is {_shown(value)}; expected {self._range()}'
        if self.greatest is not None and not number <= self.greatest:
            return f'parameter {self.name} is {_shown(value)}; expected {self._range()}'
        if self.choices and value not in self.choices:
            return (f'parameter {self.name} is {value!r}; expected one of '
                    f'{", ".join(self.choices)}')
        return ''

    def descriptor(self) -> ParameterDescriptor:
        """Return the descriptor for rclpy and `ros2 param describe`."""
        descriptor = ParameterDescriptor(
            description=self.description, read_only=self.read_only,
            # rclpy would reject an integer for a float; `fault` checks the type instead.
            dynamic_typing=isinstance(self.default, float))
        if self.choices:
            descriptor.additional_constraints = f'One of {", ".join(self.choices)}.'
        if self.least is not None and self.greatest is not None:
            if isinstance(self.default, float):
                descriptor.floating_point_range = [FloatingPointRange(
                    from_value=float(self.least), to_value=float(self.greatest), step=0.0)]
            else:
                descriptor.integer_range = [IntegerRange(
                    from_value=int(self.least), to_value=int(self.greatest), step=0)]
        return descriptor

    def _range(self) -> str:
        if self.greatest is None:
            return f'at least {_shown(self.least)}'
        if self.least is None:
            return f'at most {_shown(self.greatest)}'
        return f'{_shown(self.least)} … {_shown(self.greatest)}'


def declare_parameters(
    node: Node, table: Iterable[NodeParameter], read_only: bool = False,
) -> dict[str, Any]:
    """
    Declare the parameters of a table and return {name: value}, floats as float.

    :param read_only: no parameter of this table may change later.
    :raises WrongParameter: an override has a wrong type or value.
    """
    overrides = parameter_overrides(node)
    values = {}
    for parameter in table:
        if parameter.name in overrides:
            fault = parameter.fault(overrides[parameter.name])
            if fault:
                raise WrongParameter(fault)
        descriptor = parameter.descriptor()
        descriptor.read_only |= read_only
        value = node.declare_parameter(parameter.name, parameter.default, descriptor).value
        values[parameter.name] = float(value) if isinstance(parameter.default, float) else value
    return values


def parameter_overrides(node: Node) -> dict[str, Any]:
    """Return the overrides from command line, parameter files and launch."""
    # rclpy has no public function that reads an override before the declaration.
    return {name: parameter.value for name, parameter in node._parameter_overrides.items()}


def _shown(value: Any) -> str:
    """Return a value as YAML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f'{value:g}'
    return str(value) if isinstance(value, int) else repr(value)
