"""Settings: what config.toml may say, and how it is read."""
