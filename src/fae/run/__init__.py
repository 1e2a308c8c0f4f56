"""A recipe in a folder: stages as objects, the run record, the demo."""
