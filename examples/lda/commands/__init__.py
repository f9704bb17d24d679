"""Commands of the LDA example."""
