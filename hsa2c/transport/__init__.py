"""What carries the messages of Algorithms 1 and 2."""
