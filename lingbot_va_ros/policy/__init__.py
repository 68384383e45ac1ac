"""The policy: inference (engine and session) and runtime (scheduler and its threads)."""
