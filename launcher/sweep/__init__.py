"""`launcher sweep`: many commands or runs, each once, over this machine, several hosts or a Slurm job array.

folder: what a sweep is and what its members left; grid makes one from a configuration; member runs one member wherever it is;
pool (this machine, hosts) and array (Slurm) bring members there; progress shows it; command is the verb.
"""
