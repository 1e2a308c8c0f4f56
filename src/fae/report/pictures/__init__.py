"""Cards of a page: curves and bars drawn from records, as plain values and SVG."""
