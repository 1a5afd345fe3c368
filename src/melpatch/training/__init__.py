"""The loop, and the folder it leaves."""
