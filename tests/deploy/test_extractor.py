import io
import json
import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from deploy import FeatureExtractor, ImageError, ModelError
from deploy.extractor import bucket

CPU = "CPUExecutionProvider"


@pytest.fixture(scope="module")
def extractor(model):
    return FeatureExtractor(model, providers=[CPU], batch_size=3, threads=1)


@pytest.mark.parametrize("input_format", ["uint8_nhwc", "float_nchw"])
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_files_say_what_torch_says(models, encoded, expected, input_format, batch_size):
    outputs = FeatureExtractor(models[input_format], providers=[CPU], batch_size=batch_size).outputs(encoded)
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(outputs, name), value, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(outputs.embeddings, axis=1), 1, atol=1e-6)


def test_paths_bytes_and_arrays_of_one_image_are_equal(extractor, photos):
    path = photos / "0.jpg"
    array = np.array(Image.open(path))
    embeddings = extractor.extract([path, str(path), path.read_bytes(), array])
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, np.tile(embeddings[0], (4, 1)))


def test_the_attributes_say_what_goes_in_and_comes_out(extractor):
    assert (extractor.dim, extractor.height, extractor.width) == (6, 24, 16)
    assert extractor.metadata["epoch"] == 3
    assert extractor.providers == (CPU,)


def test_no_images_give_arrays_of_no_row(extractor):
    outputs = extractor.outputs([])
    assert [array.shape for array in outputs] == [(0, 6), (0, 3), (0,), (0,)]
    assert extractor.extract(iter(())).dtype == np.float32


def test_images_are_read_only_as_batches_need_them(extractor, encoded):
    read = []

    def images():
        for i, image in enumerate(encoded):
            read.append(i)
            yield image

    batches = extractor.stream(images())
    assert len(next(batches).embeddings) == 3
    assert read == [0, 1, 2, 3, 4, 5]  # one batch ahead
    assert [len(batch.embeddings) for batch in batches] == [3, 1]


def test_the_next_batch_is_decoded_while_the_caller_is_busy_with_this_one(extractor, encoded):
    decoding = threading.Event()

    def fourth():
        decoding.set()
        return encoded[3]

    batches = extractor.stream([*encoded[:3], fourth])
    next(batches)
    assert decoding.wait(timeout=30)
    assert [len(batch.embeddings) for batch in batches] == [1]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_of_any_size_on_any_threads_say_what_one_by_one_says(model, encoded, batch_size):
    images = encoded * 3
    alone = FeatureExtractor(model, providers=[CPU], batch_size=1, threads=1)
    together = FeatureExtractor(model, providers=[CPU], batch_size=batch_size, threads=4)
    np.testing.assert_allclose(together.extract(images),
                               np.concatenate([alone.extract([image]) for image in images]), atol=1e-6)


def test_a_caller_that_wants_no_more_ends_the_decoding(extractor, encoded):
    before = threading.enumerate()
    read = []

    def reader(i):
        def image():
            read.append(i)
            return encoded[i % 7]
        return image

    batches = extractor.stream(map(reader, range(1000)))
    next(batches)
    assert len(threading.enumerate()) > len(before)
    batches.close()
    assert threading.enumerate() == before
    assert read == list(range(len(read))) and 3 <= len(read) <= 6


@pytest.mark.parametrize("given", [3, 4, 5])
def test_a_source_that_fails_loses_no_batch_that_was_full_before(extractor, encoded, given):
    def images():
        yield from encoded[:given]
        raise OSError("the camera is gone")

    batches = extractor.stream(images())
    np.testing.assert_allclose(next(batches).embeddings, extractor.extract(encoded[:3]), atol=1e-6)
    with pytest.raises(OSError, match="the camera is gone"):
        next(batches)


def test_padding_goes_to_few_sizes_and_never_beyond_the_batch_size():
    assert [bucket(count, 12) for count in (1, 2, 3, 4, 5, 8, 9, 12)] == [1, 2, 4, 4, 8, 8, 12, 12]
    assert bucket(13, 12) == 13


@pytest.mark.parametrize("input_format", ["uint8_nhwc", "float_nchw"])
def test_a_padded_batch_has_the_outputs_of_its_own_rows(models, tmp_path, input_format, encoded, expected):
    of_four = onnx.load(models[input_format])
    of_four.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(of_four, tmp_path / "of_four.onnx")  # refuses all that is not padded to four
    extractor = FeatureExtractor(tmp_path / "of_four.onnx", providers=[CPU], batch_size=4)
    assert not extractor.pads
    extractor.pads = True
    outputs = extractor.outputs(encoded)  # 4 + 3
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(outputs, name), value, atol=2e-5)


def test_a_bad_image_is_named_by_position_and_path(extractor, photos):
    with pytest.raises(ImageError, match=r"^image 1: .*notes\.txt: not an image"):
        extractor.extract([photos / "0.jpg", photos / "notes.txt"])
    with pytest.raises(ImageError, match=r"^image 4: image bytes: not an image"):
        extractor.extract([(photos / "0.jpg").read_bytes()] * 4 + [b"GIF?"])


def test_bad_images_are_left_out_where_the_caller_says_so(extractor, encoded):
    bad = []
    batches = extractor.stream([b"?", *encoded[:2], b"!", b"!", b"!", encoded[2]],
                               bad=lambda position, error: bad.append(position))
    embeddings = extractor.join(batches).embeddings
    assert bad == [0, 3, 4, 5]
    np.testing.assert_allclose(embeddings, extractor.extract(encoded[:3]), atol=1e-6)


@pytest.mark.parametrize("image", ["photo.jpg", b"bytes", Path("photo.jpg"), np.zeros((9, 9, 3), np.uint8)])
def test_one_image_instead_of_several_is_refused(extractor, image):
    with pytest.raises(TypeError, match=r"write \[image\]"):
        extractor.extract(image)


@pytest.mark.parametrize("dtype", [str, object])
def test_an_array_of_paths_is_several_images(extractor, photos, dtype):
    paths = [str(photos / "0.jpg"), str(photos / "1.jpg")]
    np.testing.assert_array_equal(extractor.extract(np.array(paths, dtype)), extractor.extract(paths))


def test_a_batch_of_no_image_is_refused(model):
    with pytest.raises(ValueError, match="batch_size: at least 1 expected, got 0"):
        FeatureExtractor(model, batch_size=0)


def test_a_provider_that_onnxruntime_lacks_is_refused(model):
    with pytest.raises(ModelError, match=f"provider NoSuchProvider: this onnxruntime has .*{CPU}"):
        FeatureExtractor(model, providers=["NoSuchProvider"])


CUDA = "CUDAExecutionProvider"


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="onnxruntime without CUDA")
def test_cuda_is_used_or_refused_but_never_replaced_in_silence(model, encoded):
    try:
        extractor = FeatureExtractor(model, providers=[CUDA, CPU])
    except ModelError as error:
        assert str(error).startswith(f"provider {CUDA}: its libraries or its device do not load here")
        assert str(error).endswith(CPU)
    else:
        assert extractor.providers[0] == CUDA


def test_auto_says_what_it_took(model, caplog):
    with caplog.at_level(logging.INFO, "kiln.deploy"):
        extractor = FeatureExtractor(model)
    record, = caplog.records
    assert f"running on {extractor.providers[0]}" in record.getMessage()


def test_a_missing_file_and_a_file_of_another_kind_are_refused_by_name(photos):
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file$"):
        FeatureExtractor(photos / "absent.onnx")
    with pytest.raises(ModelError, match=r"notes\.txt: onnxruntime cannot open it") as raised:
        FeatureExtractor(photos / "notes.txt", providers=[CPU])
    assert "\n" not in str(raised.value)


def test_a_model_that_kiln_did_not_export_is_refused(with_metadata):
    bare = with_metadata("bare.onnx", dict.clear)
    with pytest.raises(ModelError, match=r"bare\.onnx: no metadata embedding_dim, input_format, prepro"):
        FeatureExtractor(bare, providers=[CPU])
    prose = with_metadata("prose.onnx", lambda said: said.update(notes="{"))
    with pytest.raises(ModelError, match=r"prose\.onnx: metadata are no JSON"):
        FeatureExtractor(prose, providers=[CPU])


def test_a_preprocessing_of_the_future_is_refused(with_metadata):
    def change_decoder(said):
        said["preprocessing"] = json.dumps(json.loads(said["preprocessing"]) | {"decoder": "crystal"})

    path = with_metadata("future.onnx", change_decoder)
    with pytest.raises(ModelError, match=r"future\.onnx: preprocess\.decoder: 'pillow' expected, got 'cry"):
        FeatureExtractor(path, providers=[CPU])


def test_channels_are_not_swapped(extractor):
    red, blue = (Image.new("RGB", (16, 24), colour) for colour in ("red", "blue"))
    encoded = io.BytesIO()
    red.save(encoded, "PNG")
    from_file, from_red, from_blue = extractor.extract([encoded.getvalue(), np.array(red), np.array(blue)])
    np.testing.assert_array_equal(from_file, from_red)
    assert from_red @ from_blue < 0.99


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Blocked())
from deploy import FeatureExtractor
import deploy.extract, deploy.selftest
extractor = FeatureExtractor(sys.argv[1], providers=["CPUExecutionProvider"])
print(extractor.extract(sys.argv[2:]).shape, deploy.selftest.replay(extractor).passed)
"""


def test_numpy_pillow_and_onnxruntime_are_enough(model, photos):
    blocked = {"torch", "torchvision", "lmdb", "pydantic", "tqdm", "onnx", "onnxscript", "tensorboardX",
               "params", "data", "trainer", "evaluate"}
    run = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(blocked=blocked), model, photos / "0.jpg", photos / "1.jpg"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (run.stdout, run.returncode) == ("(2, 6) True\n", 0), run.stderr
