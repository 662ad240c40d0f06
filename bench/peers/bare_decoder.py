"""simplejpeg alone in a process of its own, driven line by line from ``bench/input.py``.

    python bench/peers/bare_decoder.py FOLDER_OF_JPEGS

Each line ``N`` on standard input decodes N files, strictly, as the package's documentation calls
it, and answers with the CPU seconds. The allocator is the default one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import simplejpeg


def main() -> None:
    files = [path.read_bytes() for path in sorted(Path(sys.argv[1]).glob("*.jpg"))]
    for line in sys.stdin:
        start = time.process_time()
        for i in range(int(line)):
            simplejpeg.decode_jpeg(files[i % len(files)], "RGB")
        print(time.process_time() - start, flush=True)


if __name__ == "__main__":
    main()
