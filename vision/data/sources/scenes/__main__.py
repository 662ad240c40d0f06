"""``python -m vision.data.sources.scenes --sheet out.png``: a contact sheet of the generator."""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vision.data.sources.scenes",
        description="Draw a contact sheet of everything the scene generator can do.",
    )
    parser.add_argument("--sheet", required=True, metavar="FILE", help="image to write")
    arguments = parser.parse_args()
    from vision.data.sources.scenes.contact_sheet import save_sheet

    save_sheet(arguments.sheet)
    print(f"wrote {arguments.sheet}")


if __name__ == "__main__":
    main()
