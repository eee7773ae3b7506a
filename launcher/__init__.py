"""Starts, watches, restarts and stops pretraining runs. Imports neither torch nor numpy at start-up."""
