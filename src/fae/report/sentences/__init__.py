"""What a page says in words: the verdict, what to try next, the meaning of its words, what is noise."""
