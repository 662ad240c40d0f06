"""How models withstand what was made to fool them, and how to look inside: one file per paper."""
