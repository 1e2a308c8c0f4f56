"""What a page says in words: the verdict, what to try next, what words mean, what is noise."""
