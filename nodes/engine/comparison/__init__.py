"""Settings side by side: what changed against the first, how different the images of each are, and the sheet that shows both."""
