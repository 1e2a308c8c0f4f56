"""What a training tells while it runs, and to whom; when it stops early."""
