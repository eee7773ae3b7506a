"""Finetuning on the paper's tasks (sections 3.3 and 5): tasks, heads, one runner, sweeps, ensembles, submissions."""
