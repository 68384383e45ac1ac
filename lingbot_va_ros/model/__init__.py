"""The network and what it computes with: memory, schedule, codec, text, checkpoints."""
