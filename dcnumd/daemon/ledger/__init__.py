"""What became of every measurement: rows, the steps on their way, and what can be asked of them."""
