"""What ``python -m vision.checkpoint.store --help`` says."""

USAGE = """
python -m vision.checkpoint.store COMMAND WORKDIR [flags]

  verify  reads every checkpoint and compares it with its checksums; exit status 1 if one is damaged
  list    steps, and which of them are complete
  digest  SHA-256 over a state
  export  writes parameters, and BatchNorm statistics and the like, as safetensors
"""
FLAGS = {
    "step": "which one, or best (default: verify: all; digest, export: the newest valid one)",
    "out": "export: the file to write",
    "params": "export: regular expression; only names in which it is found (default: all)",
    "extra_state": "export: 'ema' for the average (default if there is one), 'none' for the last",
}
