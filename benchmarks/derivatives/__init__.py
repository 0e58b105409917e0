"""The errors, times and memory of derivatives beside those of other libraries."""
