"""The fused kernels on a GPU, and what is built on them."""
