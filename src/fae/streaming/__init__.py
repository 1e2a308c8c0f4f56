"""Motion: rows and inputs between host memory and device, by threads that meet at counters."""
