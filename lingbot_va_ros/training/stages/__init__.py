"""The stages of a training run; each resumes where it was stopped."""
