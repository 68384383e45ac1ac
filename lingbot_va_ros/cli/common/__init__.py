"""Code shared by the subcommands: options, processes, progress display, MP4 files."""
