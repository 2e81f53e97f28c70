"""What is going on, for those who look at the daemon from outside."""
