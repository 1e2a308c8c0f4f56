"""What a training tells while it runs, and to whom: epochs, a file of metrics, callbacks; and when it stops early."""
