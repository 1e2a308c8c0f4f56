"""Where tasks of the data stages run: threads, processes, a Dask cluster, machines that share a folder."""
