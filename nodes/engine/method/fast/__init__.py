"""The formula and the measures by chunks, so that what they take does not grow with the number of heads."""
