"""The speed scale: one factor on the speed along the whole path, the least of all asked for."""

from collections import deque
import math
import threading

# A smaller scale counts as this one: a path at no speed would never end.
LEAST_SCALE = 0.001
# Drivers report full speed with rounding errors: this much above it is still full speed.
ROUNDING = 1e-3
# A lower scale is enforced after this time, s, and along a ramp of this rate, 1/s: a policy that
# follows the scale has begun to slow its plan down by then, and a plan that does not is slowed
# down along its path.
LOWERING_DELAY, LOWERING_RATE = 0.1, 1.5
# What is not a path, each joint by itself, is kept to it so much later, s.
JOINTS_DELAY = 0.25

STANDS_STILL = "a speed scaling above 0 (the robot's driver keeps the arm still)"
# A driver that tells its speed scaling is lost after so much silence, s.
DRIVER_TIMEOUT = 1.0
NEVER_HEARD = 'none came on speed_scaling_topic'
SILENT = f'silent for {DRIVER_TIMEOUT:g} s'
OPERATOR, DRIVER, PROXIMITY = 'operator', 'driver', 'proximity'
# What is near cannot wait: for its sake the scale sinks without delay, along a ramp of this rate,
# 1/s.
PROXIMITY_RATE = 10.0


class SpeedScale:
    """
    The scales that are asked for by name, and the least of them, which is in force.

    All joints move along the same path at this share of their speed. May be used by any thread.

    :param operator: the operator's scale at first, above 0 and at most 1.
    :param full_scale: the value of the driver that means full speed: 100 for percent.
    :param follows_driver: nothing may move while the driver does not tell its speed scaling.
    """

    def __init__(
        self, operator: float = 1.0, full_scale: float = 1.0, follows_driver: bool = False,
    ) -> None:
        self._full_scale = full_scale
        self._lock = threading.Lock()
        self._asked = {OPERATOR: max(operator, LEAST_SCALE)}
        self._follows_driver = follows_driver
        # Since the driver's last good value, s, and what is wrong with what came since.
        self._silence, self._refusal = math.inf, ''
        self._stands_still = False
        self._enforced = self.scale
        self._recent: deque[tuple[float, float]] = deque()  # seconds since, enforced scale
        self._waited = 0.0

    @property
    def scale(self) -> float:
        """The scale in force."""
        return self._least()[0]

    @property
    def source(self) -> str:
        """The name of the one that asks for the scale in force."""
        return self._least()[1]

    @property
    def faults(self) -> tuple[str, ...]:
        """What a motion lacks because of the driver, a line each."""
        if self._stands_still:
            return (STANDS_STILL,)
        if not self._follows_driver or self._silence <= DRIVER_TIMEOUT:
            return ()
        why = self._refusal or (NEVER_HEARD if math.isinf(self._silence) else SILENT)
        return (f"the driver's speed scaling ({why})",)

    def ask(self, name: str, scale: float) -> None:
        """
        Ask for a scale under a name, in place of the one asked for before.

        :raises ValueError: it is not above 0 and at most 1.
        """
        if not 0.0 < scale <= 1.0:  # NaN too
            raise ValueError(f'scale is {scale:g}; expected a number above 0 and at most 1')
        with self._lock:
            self._asked = {**self._asked, name: max(float(scale), LEAST_SCALE)}

    def set_operator(self, scale: float) -> tuple[bool, str]:
        """Answer set_speed: (success, message)."""
        try:
            self.ask(OPERATOR, scale)
        except ValueError as error:
            return False, str(error)
        least, source = self._least()
        why = '' if source == OPERATOR else f', which the {source} asks for'
        return True, f'the speed scale is {least:g}{why}'

    def take_driver(self, value: float) -> str:
        """
        Take the driver's speed scaling, and return why it is refused, or an empty text.

        The driver reports 0 where the robot's own slider or program keeps the arm still: nothing
        may move then.
        """
        scale = value / self._full_scale
        if not 0.0 <= scale <= 1.0 + ROUNDING:
            self._refusal = f'it is {value:g}, expected 0 … {self._full_scale:g}'
            return (f'speed scaling is {value:g}; expected 0 … {self._full_scale:g} '
                    '(see speed_scaling_unit)')
        self.ask(DRIVER, min(max(scale, LEAST_SCALE), 1.0))
        self._silence, self._refusal = 0.0, ''
        self._stands_still = not scale > 0.0
        return ''

    def refuse_driver(self, reason: str) -> None:
        """Take note why nothing that the driver sends can be read."""
        self._refusal = reason

    def enforce(self, seconds: float) -> float:
        """
        Return the scale that commands must keep to now; called once a tick by one thread.

        A higher scale holds at once, a lower one is reached along a ramp; the one of the proximity
        along a steeper one.

        :param seconds: from the last call.
        """
        self._silence += seconds
        scale = self.scale
        if scale >= self._enforced:
            self._enforced, self._waited = scale, 0.0
        else:
            self._waited += seconds
            rate, lowest = 0.0, scale
            if self._waited > LOWERING_DELAY:
                rate = LOWERING_RATE
            if self._asked.get(PROXIMITY, 1.0) < self._enforced:
                rate = PROXIMITY_RATE
                lowest = max(scale, self._asked[PROXIMITY])
            self._enforced = max(lowest, self._enforced - rate * seconds)
        self._recent = deque(
            (age + seconds, each) for age, each in self._recent if age + seconds <= JOINTS_DELAY)
        self._recent.append((0.0, self._enforced))
        return self._enforced

    @property
    def of_joints(self) -> float:
        """The scale that no joint exceeds: the largest that was enforced a little while ago."""
        return max((scale for _, scale in self._recent), default=self._enforced)

    def _least(self) -> tuple[float, str]:
        asked = self._asked
        name = min(asked, key=lambda each: asked[each])
        return asked[name], name
