from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from vision.config.specs import build, spec, to_plain
from vision.data import ops
from vision.data.pipeline import EvalData
from vision.data.sources.fake import Fake
from vision.data.tokenizers import Canonical, ClipTokenizer, HuggingFaceTokenizer
from vision.weights import cards, describe
from vision.weights.cards import read, written
from vision.weights.init_from import InitFrom
from vision.weights.mapping import WeightsError
from vision.weights.preprocessing import Preprocessing, disagreements, normalisation, of_ops
from vision.weights.reader import open_weights
from vision.weights.text_cards import read_tokenizer

GOLDENS = Path(__file__).resolve().parents[1] / "golden" / "weights"
CARDS = json.loads((GOLDENS / "preprocessing.json").read_text())
PIXELS = open_weights(GOLDENS / "preprocessing.safetensors")
RNG = np.random.default_rng(0)


def beside(folder, files):
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def run(evaluation, image):
    example = {"image": image}
    for op in evaluation:
        example = op(example, RNG)
    return example["image"]


@pytest.mark.parametrize("case", CARDS)
def test_pixels_are_theirs(case, tmp_path):
    """Pillow's pixels are the same to the bit; torchvision's differ by a rounding of the resized
    ones, by one level of 255. Where three pixels of four too many are cut off, transformers begins
    one earlier than torchvision's crop, which timm, open_clip and we have."""
    scheme = CARDS[case]["scheme"]
    found = read(f"{scheme}:{beside(tmp_path, CARDS[case]['files'])}")
    assert found is not None
    card, _ = found
    assert isinstance(card, Preprocessing)
    for i in range(2):
        got = run(card.evaluation(), PIXELS[f"images/{i}"][...])
        level = 1 / 255 / min(card.std)
        later = scheme == "transformers" and card.mode == "shortest" and _surplus(card, i) % 4 == 3
        seen, rest = (got[:-1], slice(1, None)) if later else (got, slice(None))
        np.testing.assert_allclose(seen, PIXELS[f"{case}/{i}"][rest], rtol=0, atol=2e-6)
        if scheme == "transformers":
            theirs = PIXELS[f"{case}/{i}/torch"][rest]
            np.testing.assert_allclose(seen, theirs, rtol=0, atol=1.01 * level)
            assert np.abs(seen - theirs).mean() < 0.1 * level


# What their code does to files that are neither RGB nor grey, and ours does not: docs/weights.md.
FILES = open_weights(GOLDENS / "preprocessing_files.safetensors")
KINDS = sorted(name[6:] for name in FILES if name.startswith("files/"))
ALPHA = {"palette_transparent", "rgba", "grey_alpha"}
NEVER = {"turned_by_exif", "grey_16_bit"}
DIFFERENT = {
    "timm": NEVER | ALPHA,
    "open_clip": NEVER | ALPHA | {"palette", "two_levels", "cmyk_tiff"},
    "transformers": NEVER,
}


@pytest.mark.parametrize("library", DIFFERENT)
def test_files_of_every_kind(library):
    clip = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    card = Preprocessing(size=(16, 16), mean=clip[0], std=clip[1])
    if library == "timm":
        card = Preprocessing(size=(16, 16), resized=(17, 17))
    levels = {}
    for kind in KINDS:
        pixels = run(card.evaluation(), FILES[f"files/{kind}"][...].tobytes())
        apart = np.abs(pixels - FILES[f"{library}/{kind}"][...]) * card.std * 255
        levels[kind] = apart.max()
    assert len(levels) == 13
    assert {kind for kind, apart in levels.items() if apart > 1e-3} == DIFFERENT[library]
    if library == "open_clip":
        assert levels.pop("cmyk_tiff") < 1.01
    assert all(levels[kind] > 50 for kind in levels.keys() & DIFFERENT[library])


def _surplus(card, i):
    """Rows or columns that the crop takes away; picture 1 is the higher one."""
    height, width = PIXELS[f"images/{i}"].shape[:2]
    longer = card.before_crop[0] * max(height, width) // min(height, width)
    return longer - card.size[0]


@pytest.mark.parametrize("case", CARDS)
def test_there_and_back(case, tmp_path):
    """A card as ops, as a card again, and written for the library that it came from."""
    scheme = CARDS[case]["scheme"]
    found = read(f"{scheme}:{beside(tmp_path, CARDS[case]['files'])}")
    assert found is not None
    card, path = found
    assert of_ops(card.evaluation(), (7, 7, 3)) == card
    values = written(scheme, card)
    model = {"vision_cfg": {"image_size": list(card.size)}}
    content = {"open_clip": {"preprocess_cfg": values, "model_cfg": model}}.get(scheme, values)
    path.write_text(json.dumps(content))
    assert read(f"{scheme}:{tmp_path}") == (card, path)
    (tmp_path / cards.OURS).write_text(json.dumps(written("safetensors", card)))
    assert read(f"safetensors:{tmp_path}") == (card, tmp_path / cards.OURS)


def test_every_crop_ratio_is_a_number():
    for side in (224, 256, 336, 384, 518):
        for before in range(side, side + 80):
            card = Preprocessing(size=(side, side), resized=(before, before))
            assert int(side / written("timm", card)["crop_pct"]) == before


def test_in_a_config():
    card = Preprocessing(size=(8, 8), resized=(10, 10), mean=(0.5,) * 3, std=(0.25,) * 3)
    data = spec(EvalData, source=spec(Fake, num_examples=3), batch_size=2, ops=card.evaluation())
    assert [to_plain(data)["ops"][-1][key] for key in ("low", "high", "key")] == [-2, 2, "image"]
    assert build(data).ops == card.evaluation()
    printed = [describe.as_spec(op, "ops.") for op in card.evaluation()]
    names = {"spec": spec, "ops": ops}
    assert tuple(build(eval(line, names)) for line in printed) == card.evaluation()


def test_command(tmp_path, capsys):
    config = {"architecture": "x", "input_size": [3, 32, 32], "crop_pct": 0.9, "crop_mode": None}
    beside(tmp_path, {"config.json": config})
    assert describe.main([f"timm:{tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "spec(ops.Resize, size=35, method='bicubic')," in out
    assert "spec(Preprocessing, size=(32, 32), resized=(35, 35))" in out
    assert str(tmp_path / "config.json") in out
    assert "# no tower: " in out
    assert "'x', which no tower here is known" in out
    assert describe.main([f"open_clip:{tmp_path}"]) == 2
    assert "there is no card" in capsys.readouterr().err
    assert describe.main([]) == 2


TIMM, HF, CLIP = "config.json", "preprocessor_config.json", "open_clip_config.json"


@pytest.mark.parametrize(
    ("scheme", "files", "message"),
    [
        ("timm", {TIMM: {"pretrained_cfg": {"interpolation": "random"}}}, "interpolation is none"),
        ("timm", {TIMM: {"pretrained_cfg": {"crop_mode": [1]}}}, "crop_mode is none of center"),
        ("timm", {TIMM: {"pretrained_cfg": {"gamma": 2}}}, "gamma is not known here"),
        ("timm", {TIMM: {"pretrained_cfg": {"mean": [0.5, "x", 1]}}}, "mean is not 3 numbers"),
        ("timm", {TIMM: {"pretrained_cfg": {"std": [0.5, 0, 1]}}}, "std"),
        ("timm", {TIMM: {"pretrained_cfg": [3]}}, "pretrained_cfg is not an object"),
        ("timm", {TIMM: "[1, 2"}, "is not JSON"),
        ("timm", {TIMM: "[1, 2]"}, "does not hold a JSON object"),
        ("open_clip", {CLIP: {"preprocess_cfg": {"resize_mode": "fit"}}}, "resize_mode is none"),
        ("open_clip", {CLIP: {"preprocess_cfg": {"size": -1}}}, "size is no size"),
        ("transformers", {HF: {"image_processor_type": "Owl"}}, "image_processor_type is none of"),
        ("transformers", {HF: {"image_processor_type": "ViTImageProcessor", "resample": 9}}, "9"),
        (
            "transformers",
            {HF: {"image_processor_type": "Siglip2ImageProcessorFast", "max_num_patches": -1}},
            "max_num_patches is no size: -1",
        ),
        (
            "transformers",
            {HF: {"image_processor_type": "ViTImageProcessor", "do_normalize": False}},
            "do_normalize leaves a step out",
        ),
        (
            "transformers",
            {HF: {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False}},
            "do_center_crop leaves images of many sizes",
        ),
        ("safetensors", {cards.OURS: {"mode": "fit"}}, "mode is 'fit', expected one of"),
        ("safetensors", {cards.OURS: {"gamma": 2}}, "gamma is not known here"),
    ],
)
def test_bad_cards(scheme, files, message, tmp_path):
    beside(tmp_path, files)
    name = re.escape(str(tmp_path / next(iter(files))))
    with pytest.raises(WeightsError, match=f"{name}.*{message}"):
        read(f"{scheme}:{tmp_path}")


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (
            {"image_processor_type": "DINOv3ViTImageProcessorFast", "default_to_square": True},
            Preprocessing(mode="squash", method="bilinear"),
        ),
        (
            {"feature_extractor_type": "BeitFeatureExtractor", "do_center_crop": True, "size": 256}
            | {"crop_size": 224, "do_reduce_labels": False},
            Preprocessing(resized=(256, 256), mode="squash", mean=(0.5,) * 3, std=(0.5,) * 3),
        ),
    ],
)
def test_processors_of_newer_families(values, wanted, tmp_path):
    found = read(f"transformers:{beside(tmp_path, {HF: values})}")
    assert found is not None
    assert found[0] == wanted


def test_what_a_library_cannot_say():
    with pytest.raises(WeightsError, match="open_clip does not resize by 'lanczos'"):
        written("open_clip", Preprocessing(method="lanczos"))
    with pytest.raises(WeightsError, match="open_clip neither resizes beyond the crop"):
        written("open_clip", Preprocessing(resized=(256, 256)))
    with pytest.raises(WeightsError, match="one crop_pct"):
        written("timm", Preprocessing(resized=(256, 300)))
    with pytest.raises(WeightsError, match="RandomFlip has no place"):
        of_ops((ops.RandomFlip(), ops.ValueRange()), (8, 8, 3))
    with pytest.raises(WeightsError, match="has no ValueRange"):
        of_ops((ops.Decode(),), (8, 8, 3))


def test_disagreements():
    card = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    same = (ops.Decode(), ops.ValueRange(0, 1), ops.Normalize((0.5,) * 3, (0.5,) * 3))
    other = (ops.ValueRange(0, 1), ops.Normalize())
    lines = disagreements(
        card,
        Path("folder/config.json"),
        {"a": card.evaluation(), "b": same, "c": other, "d": (ops.Decode(),)},
    )
    assert len(lines) == 1
    assert "config.c " in lines[0]
    assert "0.485" in lines[0]
    assert "folder/config.json says mean (0.5" in lines[0]
    assert normalisation((ops.ValueRange(-1, 1),)) == ((0.5,), (0.5,))


def test_remarks(tmp_path):
    """Of weights whose card says otherwise, and of a card that cannot be read."""
    wrong = {"evaluators.val.data.ops": (ops.ValueRange(-1, 1),)}
    right = {"evaluators.val.data.ops": Preprocessing().evaluation()}
    source = InitFrom(f"timm:{tmp_path}")
    assert source.remarks(wrong) == []
    beside(tmp_path, {"config.json": {"architecture": "x"}})
    (line,) = source.remarks(wrong)
    assert "config.evaluators.val.data.ops normalises with mean (0.5,)" in line
    assert str(tmp_path / "config.json") in line
    assert source.remarks(right) == []
    beside(tmp_path, {"config.json": {"gamma": 2}})
    (line,) = source.remarks(right)
    assert "are not compared" in line
    assert "gamma" in line


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<s>", "</s>", "a", "cat", "!"]
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    model.save(str(path))
    return path.read_text()


SPECIAL = {"pad_token": "<pad>", "eos_token": {"content": "</s>"}, "bos_token": "<s>"}


def test_tokenizers(tmp_path, vocabulary):
    plain = {"model_cfg": {"text_cfg": {"context_length": 5}}}
    beside(tmp_path, {"open_clip_config.json": plain, "tokenizer.json": vocabulary})
    assert read_tokenizer(f"open_clip:{tmp_path}") == ClipTokenizer(length=5)
    texts = {"context_length": 5, "hf_tokenizer_name": "org/name"}
    texts["tokenizer_kwargs"] = {"clean": "canonicalize"}
    beside(
        tmp_path,
        {
            "open_clip_config.json": {"model_cfg": {"text_cfg": texts}},
            "tokenizer_config.json": {"tokenizer_class": "T5TokenizerFast", **SPECIAL},
        },
    )
    found = read_tokenizer(f"open_clip:{tmp_path}")
    assert isinstance(found, Canonical)
    assert found.encode(["A  cat!", "_Cat_"]).tolist() == [[3, 4, 2, 0, 0], [4, 2, 0, 0, 0]]
    beside(
        tmp_path,
        {
            "config.json": {"text_config": {"max_position_embeddings": 6}},
            "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", **SPECIAL},
        },
    )
    found = read_tokenizer(f"transformers:{tmp_path}")
    assert isinstance(found, HuggingFaceTokenizer)
    assert found.encode(["a cat !"]).tolist() == [[1, 3, 4, 5, 2, 0]]
    gemma = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "do_lower_case": True}
    beside(tmp_path, {"tokenizer_config.json": gemma | {"add_eos_token": True} | SPECIAL})
    found = read_tokenizer(f"transformers:{tmp_path}")
    assert found is not None
    assert found.encode(["A CAT !"]).tolist() == [[3, 4, 5, 2, 0, 0]]
    assert read_tokenizer(f"timm:{tmp_path}") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config.json": {"tokenizer_class": "Llama"}}, "tokenizer_class is none of"),
        (
            {"tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}, "tokenizer.json": "{}"},
            "has no token number 0",
        ),
        ({"tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"}}, "has no tokenizer.json"),
    ],
)
def test_tokenizers_that_are_not_known(files, message, tmp_path):
    beside(tmp_path, files)
    with pytest.raises(WeightsError, match=message):
        read_tokenizer(f"transformers:{tmp_path}")
