"""The simulated robot's URDF with what a simulator needs, made by xacro."""

from lingbot_va_ros.resources import shared_file


def describe(arms: str, simulator: str, **mappings: str) -> str:
    """
    Return the URDF of the simulated robot with what a simulator needs.

    :param simulator: gazebo or isaac; `mappings` are arguments of the xacro files.
    """
    import xacro  # a ROS package of its own, not needed by the other launch files

    source = shared_file('urdf', 'sim_robot.urdf.xacro')
    return xacro.process_file(
        str(source), mappings={'arms': arms, 'simulator': simulator, **mappings}).toxml()
