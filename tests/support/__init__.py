"""What several test modules share: dcnum as an oracle, and a comparison of results."""
