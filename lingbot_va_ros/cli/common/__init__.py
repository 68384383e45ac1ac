"""What several subcommands share: options, processes, progress, files."""
