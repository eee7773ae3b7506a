"""The data side: raw text to indexed tokens, indexed tokens to masked batches.

Every sample is a pure function of (seed, epoch, its index). Only batches.py imports torch; the launcher prepares
data without it.
"""
