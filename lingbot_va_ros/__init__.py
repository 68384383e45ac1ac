"""LingBot-VA, an autoregressive video-action world model, on ROS 2 arms."""

from pkgutil import extend_path

# A checkout has no generated interfaces: with the checkout first on PYTHONPATH,
# `lingbot_va_ros.msg` and its siblings come from the installed copy.
__path__ = extend_path(__path__, __name__)
