"""What a probe measured: the data, its file, its figures and its words."""
