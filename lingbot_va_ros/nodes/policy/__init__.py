"""The node `lingbot_va_policy` and its messages, parameters, markers and action."""
