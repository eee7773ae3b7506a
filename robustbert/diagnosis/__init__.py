"""What a machine is and how fast: measured before a run, on every node."""
