"""What one sees of a run: its log, console, curves and report."""
