"""What a run says of images: as its evaluator, whatever form they have, from several threads."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import vision
from papers.grad_cam.method import GradCam
from tests.predict.conftest import CLASSES, SIZE, jpeg, noise
from vision.blocks.sites import SiteError
from vision.data.source import DataError
from vision.evaluate.evaluator import context
from vision.evaluators.accuracy.classification import Classification
from vision.evaluators.image_text.embeddings import embed
from vision.predict.images import Images
from vision.predict.predictor import PredictError, Predictor
from vision.predict.results import Prediction, unique_names
from vision.train.tower import Tap


def evaluated(run: Predictor) -> tuple[list[str], dict[str, np.ndarray]]:
    """Files of the evaluator of a run, and what it is told of them."""
    assert run.run is not None
    evaluator = (run.run.experiment.evaluators or {})["val"]
    assert isinstance(evaluator, Classification)
    source = evaluator.data.source
    with jax.set_mesh(run.mesh):
        ctx = context(run.variables, run.run.step, run.mesh)
        names = ("log_probabilities", "embedding")
        told = embed(run.forward, ctx, evaluator.data, names)
    return [source.key(i) for i in range(len(source))], told


def test_it_says_what_the_evaluator_is_told(run: Predictor):
    files, told = evaluated(run)
    assert run.classes == CLASSES
    said = run.predict(files)
    assert list(said.files) == files
    np.testing.assert_allclose(said.probabilities, np.exp(told["log_probabilities"]), rtol=1e-5)
    np.testing.assert_allclose(said.probabilities.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(run.embed(files), told["embedding"], rtol=1e-4, atol=1e-5)
    assert len({row.label for row in said}) > 1 or np.ptp(said.probabilities) > 0


def test_the_inputs_are_those_of_the_evaluator_bit_for_bit(run: Predictor):
    files, _ = evaluated(run)
    assert run.run is not None
    evaluator = (run.run.experiment.evaluators or {})["val"]
    assert isinstance(evaluator, Classification)
    loader = evaluator.data.loader(process_index=0, process_count=1)
    theirs = next(loader)
    loader.close()
    ours = [run.single(run.gather(file)[0])[1]["image"][0] for file in files]
    np.testing.assert_array_equal(ours, theirs["image"][: len(files)])


@pytest.mark.parametrize("batch_size", [8, 16])
def test_batches_do_not_change_a_row(run: Predictor, data: Path, batch_size: int):
    at_once = dataclasses.replace(run, batch_size=32).predict(data)
    in_parts = dataclasses.replace(run, batch_size=batch_size, threads=3).predict(data)
    assert at_once.files == in_parts.files
    assert len(at_once) == 30
    np.testing.assert_allclose(at_once.probabilities, in_parts.probabilities, rtol=1e-5)


def test_a_path_a_pillow_image_and_an_array_are_the_same(run: Predictor, tmp_path: Path):
    pixels = noise(7)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    said = run.predict([path, str(path), Image.open(path), Image.fromarray(pixels), pixels])
    assert said.files == (str(path), str(path), "image 2", "image 3", "image 4")
    np.testing.assert_array_equal(said.probabilities, said.probabilities[:1].repeat(5, 0))
    several = run.predict(np.stack([pixels, pixels]))
    np.testing.assert_allclose(several.probabilities[1], said.probabilities[0], rtol=1e-5)


def test_pillow_images_are_turned_and_composited_as_files_are(run: Predictor, tmp_path: Path):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(8)).save(turned, exif=exif)
    layered = tmp_path / "layered.png"
    Image.fromarray(np.dstack([noise(9), noise(10)[..., 0]])).save(layered)
    for path in (turned, layered):
        said = run.predict([path, Image.open(path)])
        np.testing.assert_array_equal(*said.probabilities)
    array = np.dstack([noise(9), noise(10)[..., 0]])
    grey = noise(11)[..., 0]
    said = run.predict([layered, array, grey, grey[..., None]])
    np.testing.assert_array_equal(said.probabilities[0], said.probabilities[1])
    np.testing.assert_array_equal(said.probabilities[2], said.probabilities[3])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3), np.float32), ["image 0", "float32", "give uint8"]),
        (np.zeros((8, 8, 5), np.uint8), ["image 0", "[8, 8, 5]", "[H, W, C]"]),
        (np.zeros((0, 8, 3), np.uint8), ["image 0", "[0, 8, 3]"]),
        ([b"bytes"], ["image 0", "not an image (5 bytes"]),
        (3, ["image 0", "int"]),
        ([], ["there are no images"]),
        ("/no where.jpg", ["/no where.jpg", "no such file or folder"]),
    ],
)
def test_what_is_no_image_is_refused(run: Predictor, image: object, words: list[str]):
    with pytest.raises(DataError) as caught:
        run.predict(image)  # pyright: ignore[reportArgumentType]
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_bad_file_is_raised_by_name_or_kept(run: Predictor, photos: Path):
    with pytest.raises(DataError, match=r"broken\.jpg: damaged"):
        run.predict(photos)
    kept = run.predict(photos, on_error="keep")
    bad = [Path(row.file).name for row in kept if row.error]
    assert bad == ["broken.jpg", "größe.png"]
    for row, values in zip(kept, kept.probabilities, strict=True):
        assert np.isnan(values).all() == (row.error is not None)
        assert len(row.probabilities) == (0 if row.error else 3)
        assert row.file not in (row.error or "")
    assert "5 images, 3 classes, 2 with an error" in repr(kept)
    assert np.isnan(run.embed(photos, on_error="keep")).all(1).tolist() == [
        row.error is not None for row in kept
    ]


def test_two_hundred_broken_files_do_not_hide_a_good_one(run: Predictor, tmp_path: Path):
    for i in range(200):
        (tmp_path / f"{i:03}.jpg").write_bytes(b"broken")
    (tmp_path / "z.jpg").write_bytes(jpeg(noise(0)))
    kept = run.predict(tmp_path, on_error="keep")
    assert [error is None for error in kept.errors] == [False] * 200 + [True]


def test_a_model_that_gives_nan_is_an_error_of_the_row(run: Predictor, data: Path):
    broken = dataclasses.replace(run, variables=jax.tree.map(lambda x: x * np.nan, run.variables))
    kept = broken.predict(data / "ant", on_error="keep")
    assert set(kept.errors) == {"the model gives NaN or infinity for it"}


def test_top_and_label():
    row = Prediction("f", {"a": 0.2, "b": 0.5, "c": 0.3})
    assert row.top(2) == {"b": 0.5, "c": 0.3}
    assert list(row.top(9)) == ["b", "c", "a"]
    assert row.label == "b"
    assert unique_names(("crane", "ant", "crane", "crane (2)")) == (
        "crane (0)",
        "ant",
        "crane (2)'",
        "crane (2)",
    )


def test_threads_share_one(run: Predictor, data: Path):
    files = sorted((data / "ant").iterdir())
    alone = run.predict(files).probabilities
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for said in pool.map(lambda _: run.predict(files).probabilities, range(8)):
            np.testing.assert_array_equal(said, alone)


def test_a_stream_reads_only_a_few_batches_ahead(run: Predictor):
    read: list[int] = []

    class Counted(Images):
        def __getitem__(self, index: int):
            read.append(index)
            return {"image": noise(index)}

    names = tuple(map(str, range(800)))
    one = dataclasses.replace(run, batch_size=8, threads=0)
    parts = one.stream(Counted(names, names))
    assert len(next(parts)) == 8
    assert len(read) <= 4 * 8
    parts.close()


@pytest.mark.parametrize("class_name", [None, "crane"])
def test_explain(run: Predictor, data: Path, class_name: str | None):
    file = data / "ant" / "0.jpg"
    found = run.explain(file, class_name)
    assert found.heat.shape == (SIZE, SIZE)
    assert found.heat.min() >= 0
    assert found.heat.max() == pytest.approx(1, abs=1e-5)  # a head on the class token: not "map"
    assert found.image.shape == (SIZE, SIZE, 3)
    said = run.predict(file)[0]
    assert found.class_name == (class_name or said.label)
    assert found.probability == pytest.approx(said.probabilities[found.class_name], rel=1e-4)
    assert found.overlay().size == (SIZE, SIZE)
    assert found._repr_png_().startswith(b"\x89PNG")


def test_explain_is_grad_cam_at_the_block_before_the_last(run: Predictor, data: Path):
    """The head reads the class token: nothing depends on the last block's patches."""
    file = data / "bee, queen" / "3.jpg"
    found = run.explain(file, "ant").heat
    batch = run.single(run.gather(file)[0])[1]

    def asked(images: jax.Array, tap: Tap | None = None) -> jax.Array:
        return run.forward(run.variables, {**batch, "image": images}, tap)["logits"][:, 0]  # pyright: ignore

    heat = jax.jit(lambda x: GradCam("block01", prefix=1)(asked, x))(batch["image"])
    np.testing.assert_allclose(found, heat[0], atol=1e-4)
    assert not run.explain(file, "ant", site="map").heat.any()


def test_explain_refuses(run: Predictor, data: Path):
    file = data / "ant" / "0.jpg"
    with pytest.raises(PredictError, match="no class 'dog'"):
        run.explain(file, "dog")
    with pytest.raises(SiteError, match="site='blok', but the tower has stem"):
        run.explain(file, site="blok")
    with pytest.raises(DataError, match="these are 10"):
        run.explain(data / "ant")
    with pytest.raises(PredictError, match="no dual encoder"):
        run.zero_shot(["a cat", "a dog"])


def test_load_is_the_public_name(workdir: Path):
    run = vision.load(str(workdir), batch_size=8)
    assert repr(run) == f"Predictor({workdir} at step 0, 3 classes)"
    with pytest.raises(TypeError, match="one text"):
        vision.load(workdir, allow_modules="numpy")
    with pytest.raises(PredictError, match="batch_size=0"):
        vision.load(workdir, batch_size=0)


@pytest.mark.slow
def test_worker_processes_read_the_same(run: Predictor, data: Path, photos: Path):
    given = [data, photos, noise(1), Image.fromarray(noise(2))]
    alone = dataclasses.replace(run, batch_size=8).predict(given, on_error="keep")
    said = dataclasses.replace(run, batch_size=8, workers=2).predict(given, on_error="keep")
    np.testing.assert_array_equal(said.probabilities, alone.probabilities)
    assert (said.files, said.errors) == (alone.files, alone.errors)
