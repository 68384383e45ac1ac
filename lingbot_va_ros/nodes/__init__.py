"""Thin rclpy nodes: they convert messages and call the layers below."""
