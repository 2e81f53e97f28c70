"""Settings: the content of config.toml, and how it is read."""
