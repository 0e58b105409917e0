"""What the benchmarks share: inputs, clocks, methods, races, rows, files of results, tables and plots."""
