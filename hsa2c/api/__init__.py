"""What `import hsa2c` offers: training, one's own problems, and what becomes of them, from Python."""
