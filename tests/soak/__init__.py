"""What the daemon promises, held against long, rough operation; each script has a short version among the tests."""
