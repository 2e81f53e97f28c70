"""What several test modules share: dcnum as an oracle."""
