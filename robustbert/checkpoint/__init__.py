"""Sharded checkpoints: complete or they do not count."""
