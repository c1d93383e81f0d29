"""One figure a file, named as its LaTeX label: a study's records in, a matplotlib figure out."""
