"""Order and splits of inputs where they are not those of the files: by time, draw or a column."""
