# The package on a ROS 2 image, built as a colcon workspace.
#
#   docker build --build-arg DISTRO=jazzy -t lingbot_va_ros .
#   docker run -it --rm --network host lingbot_va_ros ros2 launch lingbot_va_ros policy.launch.py …
#
# Not built where this package is developed, which has no containers.
ARG DISTRO=jazzy

FROM ros:${DISTRO}-ros-base AS dependencies
SHELL ["/bin/bash", "-c"]
WORKDIR /ws
COPY package.xml requirements.txt src/lingbot_va_ros/
COPY tools/ros_dependencies.sh src/lingbot_va_ros/tools/
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && src/lingbot_va_ros/tools/ros_dependencies.sh /ws/venv \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/ws/venv/bin:$PATH

FROM dependencies AS workspace
COPY . src/lingbot_va_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && colcon build --packages-select lingbot_va_ros \
       --cmake-args -DPython3_EXECUTABLE=/ws/venv/bin/python3 -DBUILD_TESTING=OFF
ENTRYPOINT ["/bin/bash", "-c", "source /ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["bash"]
