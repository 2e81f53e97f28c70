"""The commands, grouped into modules; `dcnumd.cli` imports a module when one of its commands is called."""
