from __future__ import annotations

import collections

import numpy as np
import pytest

pytest.importorskip("simplejpeg")
pytest.importorskip("cv2")

from bench.fuzz import DAMAGES, case, clean, judge, panel_refuses
from vision.data.decode import decode

FILES = 300


@pytest.fixture(scope="module")
def verdicts():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        return judge(range(FILES))


def test_files_are_a_function_of_their_number():
    assert [case(i) for i in range(40)] == [case(i) for i in range(40)]
    damages = collections.Counter(case(i).damage for i in range(FILES))
    assert set(damages) == set(DAMAGES)
    assert all(not panel_refuses(clean(i)) and decode(clean(i)).shape for i in range(10))


def test_nothing_is_accepted_that_a_reference_decoder_refuses(verdicts):
    assert [v for v in verdicts if v["missed"]] == []
    assert any(v["accepted"] for v in verdicts)


def test_every_refused_file_is_listed_with_its_reason(verdicts):
    assert [v for v in verdicts if v["unlisted"]] == []
    refused = [v for v in verdicts if not v["accepted"]]
    assert len(refused) > FILES / 3
    assert all(v["reason"] for v in refused)
    assert max(v["seconds"] for v in verdicts) < 5


@pytest.mark.parametrize(
    "damage", ["truncated", "zip bomb", "400-megapixel header", "zero bytes", "wrong magic"]
)
def test_what_is_hopeless_is_refused(verdicts, damage):
    kind = [v for v in verdicts if v["damage"] == damage]
    assert kind
    for v in kind:
        assert not v["accepted"] or not v["changed"], v


def test_the_panel_refuses_what_is_damaged():
    data = clean(0)
    assert panel_refuses(data[:-2])  # only the end marker is gone
    assert panel_refuses(clean(3)[:-20])
    assert panel_refuses(b"GIF89a" + bytes(50))
    stray = data[:-2] + np.random.default_rng(0).bytes(100) + data[-2:]
    assert panel_refuses(stray).startswith("libjpeg, strict")
