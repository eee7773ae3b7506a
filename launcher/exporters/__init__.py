"""What Prometheus scrapes: one exporter for the run as a whole, in its supervisor, and one a node for the node's processes.

No metric carries the run's or the node's name: the targets' labels do (targets.py).
"""
