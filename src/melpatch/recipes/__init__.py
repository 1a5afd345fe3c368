"""A paper's settings, and ours for own data: functions that return a complete config."""
