"""The fourth stage: batches whose every lookup is a final address."""
