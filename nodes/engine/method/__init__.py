"""The paper's method in plain torch: settings, formula and measures for whole tensors; `fast` computes the same by chunks."""
