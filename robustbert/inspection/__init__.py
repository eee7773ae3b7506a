"""tools/inspect: what a checkpoint or an indexed corpus holds, and whether its files are what was written."""
