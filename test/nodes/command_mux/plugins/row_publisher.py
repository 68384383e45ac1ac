"""A driver plugin for tests: publishes its rows, and fails where a file tells it to."""

from pathlib import Path

from std_msgs.msg import Float64MultiArray

from lingbot_va_ros.nodes.command_mux.driver_plugin import DriverPlugin


class RowPublisher(DriverPlugin):
    """Publishes each row; option `fails`: a file with the method that raises."""

    def __init__(self, node, joints, options):
        self.fails = Path(options['fails'])
        self.closed = Path(options['closed'])
        self.joints = joints
        self.publisher = node.create_publisher(Float64MultiArray, options['topic'], 10)

    def send(self, time_ns, positions, velocities):
        self.maybe_fail('send')
        self.publisher.publish(Float64MultiArray(data=[*positions, *velocities]))

    def fault(self):
        self.maybe_fail('fault')
        return '' if self.publisher.get_subscription_count() else 'nobody listens to its rows'

    def close(self):
        self.closed.write_text(','.join(self.joints))

    def maybe_fail(self, method):
        if self.fails.exists() and self.fails.read_text() == method:
            raise RuntimeError(f'the servo bus\nfailed in {method}')


class WithoutSend:
    """Lacks what the interface asks for."""

    def __init__(self, node, joints, options):
        pass
