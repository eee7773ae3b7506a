"""The programs whose training step benchmarks/train_step.py times, each in a process of its own."""
