"""Thin rclpy nodes: they convert messages and call the layers above."""
