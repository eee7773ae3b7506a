"""`launcher doctor`: are these nodes fit for this run? command asks, node_check and all_reduce measure, judgement decides."""
