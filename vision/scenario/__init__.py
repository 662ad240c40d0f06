"""Several stages in a row: runs, and what is computed between them."""
