"""robustbert: pretrains RoBERTa, sharded three ways, from one laptop to a cluster."""

__version__ = "0.1.0"
