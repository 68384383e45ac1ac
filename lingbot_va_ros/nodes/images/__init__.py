"""Images of cameras: messages to RGB arrays and back, and what may be wrong with them."""
