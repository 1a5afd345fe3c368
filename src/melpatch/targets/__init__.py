"""What a run can be exported to; one file per target."""
