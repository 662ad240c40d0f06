"""Serves a trained model on this machine: a page to drop pictures on, and a JSON endpoint.

    python -m vision.serve --workdir=workdirs/mine
    python -m vision.serve --model=timm:resnet50.a1_in1k --port=0
    python -m vision.serve --workdir=workdirs/clip --classes="a cat,a dog"

The page shows the likeliest classes and where in the picture the evidence for each lies. Pictures
that arrive together are run together; nothing is written or kept. Loopback only, until Ctrl-C.
Endpoint and limits: docs/serve.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from vision.config.cli import parse, run_main
from vision.predict.options import FLAGS, check_source, loaded, text

PORT = 8009


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    options = parse(
        arguments,
        __doc__ or "",
        (),
        **FLAGS,
        port=f"{PORT} by default; 0 takes a free one",
        host="address to listen at; 127.0.0.1 by default",
        public="needed for a --host that other machines can reach",
    )
    check_source(options)
    from vision.report.server import bind, listening, run

    host, port = listening(options, PORT, "this model")
    with bind(host, port) as bound:
        from vision.serve.app import application
        from vision.serve.batcher import WAITING, Batcher, warm
        from vision.serve.page import render

        started = time.perf_counter()
        predictor = loaded(options)
        print(f"{predictor.source}; preprocessing: {predictor.preprocessing}", flush=True)
        no_maps = warm(predictor)
        if no_maps:
            print(f"no heat maps: {no_maps}")
        print(f"ready after {time.perf_counter() - started:.1f} s", flush=True)
        workdir = text(options, "workdir")
        name = Path(workdir).resolve().name if workdir else str(text(options, "model"))
        page, policy = render(predictor, name, no_maps)
        batcher = Batcher(predictor, WAITING)
        try:
            app = application(predictor, batcher, page, policy, host, no_maps)
            run(app, bound, host, "page", "this model")
        finally:
            batcher.close()
    return 0


def console() -> None:
    """The command that an installation puts on the path."""
    sys.exit(run_main(main, sys.argv[1:]))


if __name__ == "__main__":
    console()
