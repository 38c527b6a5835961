"""What is wanted where: which blocks, when, on which rows of a call, and how strongly."""
