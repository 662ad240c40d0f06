"""What data sets and their protocols are made of: one file per paper."""
