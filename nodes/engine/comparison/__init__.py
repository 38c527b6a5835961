"""Settings side by side: which they are, what changed against the first, how different the images of each are, and the sheet."""
