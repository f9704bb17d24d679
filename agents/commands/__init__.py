"""Commands of the Atari application alone."""
