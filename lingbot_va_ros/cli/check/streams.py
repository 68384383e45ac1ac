"""Measure the messages of a running robot for some seconds: rates, stamps, images, joints."""

from collections.abc import Callable, Mapping, Sequence
import math
import time
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, JointState

from lingbot_va_ros.cli.check.finding import error, Finding, warning
from lingbot_va_ros.motion.time import NANOSECONDS
from lingbot_va_ros.mux.validation import LIMIT_NOISE
from lingbot_va_ros.nodes.images.camera_watch import info_size
from lingbot_va_ros.nodes.images.conversion import as_mounted, ImageConverter
from lingbot_va_ros.nodes.joint_state_watch import message_number
from lingbot_va_ros.policy.runtime.camera_buffer import CameraFault
from lingbot_va_ros.robot.joint_publishers import JointPublishers
from lingbot_va_ros.robot.joint_state_filter import JointStateFilter
from lingbot_va_ros.specs.embodiment import CameraSource, Embodiment
from lingbot_va_ros.specs.joint_state_topics import JointStateTopic

MAX_FUTURE = 0.05  # s, as command_mux: beyond it the clocks are not synchronized
OTHER_CLOCK = 1e8  # s; a stamp this far from the clock is from another clock
RATE_TOLERANCE = 0.9  # share of the nominal rate, because of jitter
SHOWN = 8  # names in one line
SHOWN_FAULTS = 2  # of bad images
DECODED_EVERY = 5
DEPTH = '16UC1'
FILTER_TIMEOUT = 1.0  # s; joint states that come more seldom are not compared


def join_names(names: Sequence[str]) -> str:
    """Return names in one line, shortened if there are many."""
    shown = ', '.join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f'{shown} … ({len(names)} in all)'


class StampStatistics:
    """
    Arrival times of messages, and their stamps relative to the ROS clock.

    :param now_ns: returns ROS time, ns.
    :param simulated: whether rates are measured in ROS time, instead of the steady clock.
    """

    def __init__(self, now_ns: Callable[[], int], simulated: bool):
        self._now_ns = now_ns
        self._simulated = simulated
        self.arrivals: list[float] = []  # s
        self._stamps: list[int] = []
        self._ages: list[float] = []  # s, ROS clock

    def add(self, stamp) -> None:
        """Add the stamp of a message that has arrived now."""
        stamp_ns = stamp.sec * NANOSECONDS + stamp.nanosec
        now_ns = self._now_ns()
        self.arrivals.append(now_ns / NANOSECONDS if self._simulated else time.monotonic())
        self._stamps.append(stamp_ns)
        self._ages.append((now_ns - stamp_ns) / NANOSECONDS)

    def rate(self) -> float | None:
        """Return messages per second, or None for fewer than two."""
        if len(self.arrivals) < 2:
            return None
        return (len(self.arrivals) - 1) / max(self.arrivals[-1] - self.arrivals[0], 1e-9)

    def faults(self, max_age: float) -> list[str]:
        """Return the faults of the stamps, which may be `max_age` s old, one per line."""
        if not self._stamps:
            return []
        if not any(self._stamps):
            return ['the stamps are zero; expected the time of measurement in header.stamp']
        found = []
        if len(self._stamps) > 2 and len(set(self._stamps)) == 1:
            found.append(f'the stamp is constant at {self._stamps[0] / NANOSECONDS:.3f} s in '
                         f'{len(self._stamps)} messages')
        elif any(later < earlier for earlier, later in zip(self._stamps, self._stamps[1:])):
            found.append('the stamps go backward: two clocks, or two publishers')
        age = float(np.median(self._ages))
        simulated = self._simulated
        clock = 'the simulated clock (/clock)' if simulated else 'the clock of this machine'
        if abs(age) > OTHER_CLOCK:
            found.append(
                f'the stamps ({self._stamps[-1] / NANOSECONDS:.1f} s) are of another clock than '
                f'{clock}: '
                f'{"the publisher does not use" if simulated else "it looks like"} simulated '
                'time; give use_sim_time the same value everywhere')
        elif age < -MAX_FUTURE:
            found.append(f'the stamps are {-age:.2f} s ahead of {clock}: synchronize the clocks')
        elif age > max_age:
            found.append(f'the stamps are {age:.2f} s behind {clock} (at most {max_age:g} s): '
                         'late, or the clocks are not synchronized')
        return found


class CameraStream:
    """
    Checks the images of one camera as the policy would receive them.

    :param size: height and width in the policy, pixels; None if not known.
    """

    def __init__(
        self, source: CameraSource, size: tuple[int, int] | None, now_ns: Callable[[], int],
        simulated: bool, converter: ImageConverter,
    ):
        self._source = source
        self._converter = converter
        self._size = size
        self.stamps = StampStatistics(now_ns, simulated)
        self._faults: list[str] = []
        self._sizes: dict[tuple[int, int], None] = {}  # width and height, as claimed
        self._mounted: tuple[int, ...] | None = None  # height and width of the first image
        self._depth = False
        self._announced: tuple[int, int] | None = None

    def take(self, message: Image | CompressedImage) -> None:
        """Add one image; of compressed ones each fifth is decoded."""
        self.stamps.add(message.header.stamp)
        decoded = isinstance(message, Image) or (
            self._mounted is None or len(self.stamps.arrivals) % DECODED_EVERY == 1)
        try:
            self._sizes[self._converter.size(message)] = None
            if decoded:
                image = self._converter.to_rgb(message)
                self._mounted = as_mounted(
                    image, self._source.crop, self._source.rotate).shape[:2]
        except CameraFault as fault:
            self._faults.append(str(fault))
            return
        self._depth = self._depth or getattr(message, 'encoding', '') == DEPTH

    def announce(self, info: CameraInfo) -> None:
        """Add a camera_info."""
        size = info_size(info)
        self._announced = size if all(size) else self._announced

    def findings(
        self, where: str, publishers: str, rate: float | None, max_age: float, seconds: float,
    ) -> list[Finding]:
        """Return the findings; `rate` is the image rate of the policy, Hz, if known."""
        images = len(self.stamps.arrivals)
        if not images:
            return [error(where, f'no image in {seconds:g} s from {publishers}')]
        lines = self.stamps.faults(max_age)
        if self._faults:
            lines.insert(0, f'{len(self._faults)} of {images} images are bad: '
                            + '; '.join([*dict.fromkeys(self._faults)][:SHOWN_FAULTS]))
        found = [error(where, f'{line} (from {publishers})') for line in lines]
        got = self.stamps.rate() or 1 / seconds
        if rate is not None and got < RATE_TOLERANCE * rate:
            found.append(error(
                where, f'{got:.1f} images per second from {publishers}; expected at least '
                f'{rate:.1f}, the grid of the policy (four images a latent frame)'))
        return found + self._size_findings(where, publishers)

    def _size_findings(self, where: str, publishers: str) -> list[Finding]:
        found = []
        sizes = [f'{width}x{height}' for width, height in self._sizes]
        if len(sizes) > 1:
            found.append(error(
                where, f'images of several sizes, {join_names(sizes)}: two cameras on one topic, '
                f'or damaged images? (from {publishers})'))
        elif self._announced is not None and self._sizes and self._announced not in self._sizes:
            found.append(warning(
                where, f'images of {sizes[0]} pixels, but camera_info says '
                f'{self._announced[0]}x{self._announced[1]}'))
        if self._size and self._mounted and any(
                has < wants for has, wants in zip(self._mounted, self._size)):
            found.append(warning(
                where, f'images of {self._mounted[1]}x{self._mounted[0]} pixels are enlarged to '
                f'the {self._size[1]}x{self._size[0]} of the policy'))
        if self._depth:
            found.append(warning(
                where, f'{DEPTH} is read as gray values; most cameras send depth in it'))
        return found


class JointStateStream:
    """Checks names, rates and positions of joint_states against the embodiment."""

    def __init__(self, embodiment: Embodiment, now_ns, simulated: bool):
        self._embodiment = embodiment
        self.arrivals: list[float] = []  # s, of all topics
        self._stamps = {
            topic.topic: StampStatistics(now_ns, simulated) for topic in embodiment.joint_states}
        self._arrivals: dict[str, list[float]] = {}
        self._positions: dict[str, float] = {}
        self._not_finite: dict[str, str] = {}
        self._odd: dict[str, None] = {}
        self._now_ns = now_ns
        self._publishers = JointPublishers(embodiment.joints)
        self._filter = JointStateFilter(embodiment.joints, embodiment.limits, FILTER_TIMEOUT)

    def take(
        self, topic: JointStateTopic, message: JointState, info: Mapping[str, Any]) -> None:
        """
        Add one joint state; several publishers may each send some of the joints.

        :param topic: on which it came.
        :param info: as rclpy gives it; empty where it gives none.
        """
        stamps = self._stamps[topic.topic]
        stamps.add(message.header.stamp)
        now = stamps.arrivals[-1]
        self.arrivals.append(now)
        ours = topic.our_names(message.name)
        number = message_number(info)
        if number is not None:
            self._publishers.update(ours, number, now)
        self._filter.update(
            ours, message.position, (), 0, self._now_ns(), now)
        if len(set(message.name)) < len(message.name):
            twice = sorted({name for name in message.name if list(message.name).count(name) > 1})
            self._odd[f'twice in one message: {join_names(twice)}'] = None
        if len(message.position) != len(message.name):
            self._odd[f'{len(message.name)} names with {len(message.position)} positions'] = None
        if message.velocity and len(message.velocity) != len(message.name):
            self._odd[f'{len(message.name)} names with {len(message.velocity)} velocities'] = None
        for name, position in zip(ours, message.position):
            if not name:  # of another robot, on a topic that lists ours
                continue
            self._arrivals.setdefault(name, []).append(now)
            if math.isfinite(position):
                self._positions[name] = position
            else:
                self._not_finite[name] = str(position)

    def findings(
        self, where: str, publishers: str, timeout: float, max_age: float, seconds: float,
    ) -> list[Finding]:
        """Return the findings; the mux holds if a joint is silent for `timeout` s."""
        if not self.arrivals:
            return [error(where, f'no joint state in {seconds:g} s from {publishers}')]
        joints = self._embodiment.joints
        lines = [*self._odd, *self._stamp_faults(max_age)]
        lines += self._conflicts()
        held = {joint.name for joint in self._embodiment.held_joints}
        foreign = [name for name in self._arrivals if name not in joints and name not in held]
        missing = [name for name in (*joints, *held) if name not in self._arrivals]
        seen = f'; received: {join_names(foreign)}' if foreign else ''
        if missing:
            lines.append(f'no position of {join_names(missing)}{seen}')
        lines += [f'the position of {name} is {value}; expected a finite number'
                  for name, value in self._not_finite.items() if name in joints]
        lines += self._outside()
        found = [error(where, f'{line} (from {publishers})') for line in lines]
        slow, paused = self._gaps(timeout, seconds)
        if slow:
            found.append(error(
                where, f'{join_names(slow)}; expected at least {1 / timeout:g} a second, or '
                f'command_mux holds (from {publishers})'))
        if paused:
            found.append(warning(
                where, f'silent: {join_names(paused)}; command_mux holds after {timeout:g} s '
                f'(from {publishers})'))
        if foreign and not missing:
            found.append(warning(
                where, f'joints that the embodiment does not have are ignored: '
                f'{join_names(foreign)}'))
        return found

    def _stamp_faults(self, max_age: float) -> list[str]:
        faults = [(topic, line) for topic, stamps in self._stamps.items()
                  for line in stamps.faults(max_age)]
        return [line if len(self._stamps) == 1 else f'{topic}: {line}' for topic, line in faults]

    def _conflicts(self) -> list[str]:
        """Return a line for each sign that two publishers bring the same joint."""
        last = self.arrivals[-1]
        doubled = self._publishers.doubled(last)
        lines = [f'{join_names(doubled)} come from several publishers: one of them is not the '
                 'driver of the arm'] if doubled else []
        return [*lines, *self._filter.report(last).contradictions]

    def _outside(self) -> list[str]:
        limits, lines = self._embodiment.limits, []
        for name, lower, upper in zip(self._embodiment.joints, limits.lower, limits.upper):
            position, noise = self._positions.get(name), LIMIT_NOISE * (upper - lower)
            if position is not None and not lower - noise <= position <= upper + noise:
                lines.append(f'{name} is at {position:.4g}, outside its limits {lower:.4g} to '
                             f'{upper:.4g}: wrong units, sign or calibration?')
        return lines

    def _gaps(self, timeout: float, seconds: float) -> tuple[list[str], list[str]]:
        """Return the joints with too low a rate, and those with too long a gap."""
        slow, paused = [], []
        for name in self._embodiment.joints:
            times = self._arrivals.get(name)
            if not times:
                continue
            gaps = np.diff(times)
            if len(gaps) == 0:
                slow.append(f'{name} came once in {seconds:g} s')
            elif gaps.mean() > timeout:
                slow.append(f'{name} comes {1 / gaps.mean():.1f} times a second')
            elif gaps.max() > timeout:
                paused.append(f'{name} for {gaps.max():.2f} s')
        return slow, paused
