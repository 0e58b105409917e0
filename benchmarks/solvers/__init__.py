"""The passes that solvers need, the library's and the rejected ones."""
