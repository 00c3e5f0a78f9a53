"""Pictures that stand in two splits, as the doctor tells them."""

import io

from PIL import Image, ImageOps

from data.archive import Meta, Record, write_archive
from data.doctor import diagnose


def test_a_picture_that_is_its_own_mirror_image_is_told_once(tmp_path, encoded_image):
    drawn, even = Image.open(io.BytesIO(encoded_image(11))), io.BytesIO()
    Image.blend(drawn, ImageOps.mirror(drawn), 0.5).save(even, "PNG")
    for split, end in (("train", b""), ("query", b"not the same bytes")):
        records = [Record(even.getvalue() + end, 0, 1, 1, f"{split}/0.jpg"),
                   Record(encoded_image(len(end)), 0, 2, 1, f"{split}/1.jpg")]
        write_archive(tmp_path / f"{split}.lmdb", records, Meta("market1501", split, [f"of {split}"]))
    assert [finding.what for finding in diagnose(tmp_path).findings if finding.check == "near_duplicates_across"] == [
        "train and query: 1 images of query look like images of train: query/0.jpg like train/0.jpg"]
