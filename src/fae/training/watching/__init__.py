"""What a training tells while it runs, and to whom: windows of the loss, epochs, a file of metrics, callbacks."""
