"""In place of the summary: nothing to convert after a fault."""
