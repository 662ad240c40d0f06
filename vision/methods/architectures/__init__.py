"""How architectures are built, read and used: one file per paper."""
