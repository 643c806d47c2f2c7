"""What runs beside student code: the worker, and the wire that it shares with the host."""
