"""One policy at work: inference (the engine and its session) and runtime (the schedule)."""
