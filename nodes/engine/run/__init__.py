"""One sampling run: what happens to each attention call, what is seen there, and what is said of it."""
