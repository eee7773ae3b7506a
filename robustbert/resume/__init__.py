"""What a run that continues from a checkpoint may change. Imports no torch: `launcher resume` and the training both ask it."""
