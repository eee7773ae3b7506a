"""What a training step asks of a GPU, counted without one: waits, operators, memory of the loss, graphs, masks."""
