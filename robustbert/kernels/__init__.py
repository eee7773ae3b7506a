"""Kernels in C++ for training on CPUs; build.py compiles them, the other modules are torch operators over them."""
