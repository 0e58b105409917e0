"""What several benchmarks share: inputs, times, rows in JSON, tables, plots."""
