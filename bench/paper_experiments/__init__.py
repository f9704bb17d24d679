"""The figures and the table of the paper's section 4, a module for each kind; `bench.paper` is their command."""
