"""Processing on a Dask cluster: the executor of the daemon, and the workers that it uses."""
