"""Networks of the agents: encoder, heads, dropout, adapters."""
