"""A folder that serves a finished model without FAE."""
