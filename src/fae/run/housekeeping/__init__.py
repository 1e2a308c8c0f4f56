"""Run folders as a whole: list them, free space, bring them to today's formats."""
