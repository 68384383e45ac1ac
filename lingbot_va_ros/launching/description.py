"""Builds the URDF of the simulated robot for a simulator, by xacro."""

from lingbot_va_ros.resources import shared_file


def describe(arms: str, simulator: str, **mappings: str) -> str:
    """
    Return the URDF of the simulated robot with the tags of a simulator.

    :param simulator: gazebo or isaac; `mappings` are arguments of the xacro files.
    """
    import xacro  # a separate ROS package, which the other launch files do not need

    source = shared_file('urdf', 'sim_robot.urdf.xacro')
    return xacro.process_file(
        str(source), mappings={'arms': arms, 'simulator': simulator, **mappings}).toxml()
