"""The paper's figures and table: ``python -m bench.paper fig1``."""
