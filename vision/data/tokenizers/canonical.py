"""Other tokenizers' rows of captions that are cleaned first, as their models were trained."""

from __future__ import annotations

import dataclasses

from vision.data.tokenize import WrappedTokenizer
from vision.data.tokenizers.cleaning import mend, one_line, without_punctuation
from vision.data.tokenizers.clip import ClipTokenizer

_MARK = "\u2581"


@dataclasses.dataclass(frozen=True)
class Canonical(WrappedTokenizer):
    """Another tokenizer's rows of texts that are cleaned as in big_vision and open_clip.

    First, with ``mend``, ftfy and HTML entities twice: everywhere in open_clip, never elsewhere.
    Then underscores become spaces, ASCII punctuation goes, letters become lower case, and runs of
    whitespace one space: open_clip's ``clean="canonicalize"``, of SigLIP and CLIPA. Its ``lower``
    is ``punctuation=True``; ``whitespace``, of BERT and others, also ``lower=False``. big_vision
    cleans class names and prompts so, keeping commas in the names, and only lowers captions.

    CLIP's own tokenizer cleans by itself: ``ClipTokenizer(clean="canonicalize")``. transformers'
    SiglipTokenizer is another: ``SiglipCanonical``.

    Attributes:
      tokenizer: of the texts.
      punctuation: whether punctuation stays, underscores included.
      lower: whether letters become lower case.
      mend: whether texts are mended first; needs ftfy for texts beyond plain ASCII.
    """

    punctuation: bool = False
    lower: bool = True
    mend: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.tokenizer, ClipTokenizer):
            raise ValueError(
                "ClipTokenizer mends and cleans texts by itself, and first: instead of Canonical, "
                "use ClipTokenizer(clean='canonicalize')"
            )

    def cleaned(self, text: str) -> str:
        if self.mend:
            text = mend(text)
        if not self.punctuation:
            text = without_punctuation(text.replace("_", " "))
        return one_line(text.lower() if self.lower else text)


@dataclasses.dataclass(frozen=True)
class SiglipCanonical(WrappedTokenizer):
    """Another tokenizer's rows of texts that are cleaned as by transformers' SiglipTokenizer.

    Lower case without ASCII punctuation on one line; nothing is mended, and words around an
    underscore become one. A text that begins with whitespace, or with punctuation and a space,
    begins with an empty word. The texts ``</s>`` and ``<unk>`` are those tokens for theirs; here
    they are letters between punctuation, like any other.

    Attributes:
      tokenizer: of the texts.
    """

    def cleaned(self, text: str) -> str:
        # Theirs puts the sign that begins a word before the text, where it keeps the whitespace
        # after it from the end of the text.
        marked = _MARK + text.replace(_MARK, " ")
        text = one_line(without_punctuation(marked.lower()))
        return "" if text == _MARK else text


@dataclasses.dataclass(frozen=True)
class Lower(WrappedTokenizer):
    """Another tokenizer's rows of texts in lower case, and otherwise as they are: SigLIP2.

    Letter by letter, as the package ``tokenizers`` does: a Greek sigma at the end of a word is one
    like any other.

    Attributes:
      tokenizer: of the texts.
    """

    def cleaned(self, text: str) -> str:
        return "".join(map(str.lower, text))
