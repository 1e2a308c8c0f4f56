"""Order and splits of a log's inputs where these are not those of its files: by time, by draw, by a column."""
