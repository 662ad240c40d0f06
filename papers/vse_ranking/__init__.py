from vision.papers import Paper

PAPER = Paper(
    title="Deep Learning Applied to Image and Text Matching",
    year=2016,
    card=3,
    tags=("image-text", "retrieval"),
    headline=("Comparable to what was best on Flickr8k and Flickr30k then (numbers unconfirmed)."),
    without={
        "method.py": "the loss is vision.blocks.contrast.Ranking",
    },
)
