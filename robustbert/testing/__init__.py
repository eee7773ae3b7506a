"""Helpers of tests that run on several ranks."""

from robustbert.testing.ranks import run_on_ranks

__all__ = ["run_on_ranks"]
