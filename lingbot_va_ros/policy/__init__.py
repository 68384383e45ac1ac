"""One episode: observation grid, action channels, session, inference worker, plan."""
