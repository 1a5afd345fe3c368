"""Public datasets by name, one file each."""
