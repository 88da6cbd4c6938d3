"""The network of an agent: a Hugging Face encoder, adapters, dropout and a head."""
