"""The commands, one module for those that belong together; `dcnumd.cli` loads each when it is called."""
