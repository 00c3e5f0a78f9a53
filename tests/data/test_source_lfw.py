"""Labeled Faces in the Wild: pairs become records two by two, and pack and doctor know that they are."""

from pathlib import Path

import pytest

from data.archive import open_archive
from data.doctor import diagnose
from data.pack import main
from data.records import DataError
from data.sources import Item

IMAGES = [f"{name}/{name}_{number:04d}.jpg" for name, number in (
    ("Abel_Pacheco", 1), ("Abel_Pacheco", 4), ("Akhmed_Zakayev", 1), ("Akhmed_Zakayev", 3), ("Al-Hakim", 12),
    ("Dean_Barker", 1), ("Zico", 1), ("Zico", 2), ("Nobody", 1))]
PAIRS = ["2\t1",
         "Abel_Pacheco\t1\t4", "Akhmed_Zakayev\t1\tDean_Barker\t1",
         "Akhmed_Zakayev\t1\t3", "Abel_Pacheco\t1\tAl-Hakim\t12"]


@pytest.fixture
def faces(tmp_path, encoded_image):
    """The set with its images in a folder, "." for the root itself."""

    def make(folder="lfw", pairs=PAIRS, place="."):
        for seed, name in enumerate(IMAGES):
            path = tmp_path / "faces" / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded_image(seed))
        (tmp_path / "faces" / place / "pairs.txt").write_text("\n".join(pairs) + "\n")
        return tmp_path / "faces"

    return make


def test_lfw_gives_the_images_of_its_pairs_two_by_two_with_their_fold(faces, read):
    splits = read("lfw", faces())
    assert splits.keys() == {"test"}
    assert [(Path(item.path).stem, item.class_name, item.camera) for item in splits["test"].items] == [
        ("Abel_Pacheco_0001", "Abel_Pacheco", 0), ("Abel_Pacheco_0004", "Abel_Pacheco", 0),
        ("Akhmed_Zakayev_0001", "Akhmed_Zakayev", 0), ("Dean_Barker_0001", "Dean_Barker", 0),
        ("Akhmed_Zakayev_0001", "Akhmed_Zakayev", 1), ("Akhmed_Zakayev_0003", "Akhmed_Zakayev", 1),
        ("Abel_Pacheco_0001", "Abel_Pacheco", 1), ("Al-Hakim_0012", "Al-Hakim", 1)]
    assert list(splits["test"].class_names) == ["Abel_Pacheco", "Akhmed_Zakayev", "Al-Hakim", "Dean_Barker"]


@pytest.mark.parametrize("folder, place", [
    ("lfw-deepfunneled", "."), ("lfw_funneled", "lfw_funneled"), (".", "."), ("lfw/lfw", "."),
])
def test_lfw_is_found_wherever_its_archives_put_it(faces, read, folder, place):
    first = read("lfw", faces(folder, place=place))["test"].items[0]
    assert first == Item(str(Path(folder, "Abel_Pacheco/Abel_Pacheco_0001.jpg")), "Abel_Pacheco", 0)


def test_lfw_can_train_on_people_who_are_in_no_pair(faces, read):
    train = read("lfw", faces(), train=True)["train"]
    assert list(train.items) == [Item("lfw/Nobody/Nobody_0001.jpg", "Nobody"), Item("lfw/Zico/Zico_0001.jpg", "Zico"),
                                 Item("lfw/Zico/Zico_0002.jpg", "Zico")]
    assert list(train.class_names) == ["Nobody", "Zico"]


@pytest.mark.parametrize("pairs, expected", [
    (PAIRS[:-1], r"pairs\.txt:1: expected 2 x 2 x 1 = 4 pairs below, there are 3, got '2\\t1'"),
    (["1100", *PAIRS[1:]], r"pairs\.txt:1: expected folds pairs, got '1100'"),
    ([PAIRS[0], *PAIRS[2:], PAIRS[1]], r"pairs\.txt:2: expected name number number, got 'Akhmed_Zakayev\\t1\\tDean"),
    ([*PAIRS[:-1], "Zico\t1\tNobody\tone"], r"pairs\.txt:5: expected a whole number in place of one"),
    ([*PAIRS[:-1], "Zico\t1\tNobody\t2"], r"pairs\.txt:5: no image Nobody_0002 among the 9 of the set"),
])
def test_lfw_names_the_line_that_is_wrong(faces, read, pairs, expected):
    with pytest.raises(DataError, match=expected):
        read("lfw", faces(pairs=pairs))


def test_the_doctor_finds_nothing_wrong_with_repeated_images_and_lone_faces(faces, tmp_path):
    assert main(["lfw", str(faces()), str(tmp_path / "out"), "--workers", "1"]) == 0
    archive = open_archive(tmp_path / "out" / "test.lmdb")
    assert archive.labels.tolist() == [0, 0, 1, 3, 1, 1, 0, 2] and archive.cameras.tolist() == [0] * 4 + [1] * 4
    assert [(finding.level, finding.check) for finding in diagnose(tmp_path / "out").findings] == [
        ("warning", "missing_splits")]  # no train


def test_the_doctor_finds_a_face_that_stands_under_two_names_of_file(faces, tmp_path):
    root = faces() / "lfw" / "Akhmed_Zakayev"
    (root / "Akhmed_Zakayev_0003.jpg").write_bytes((root / "Akhmed_Zakayev_0001.jpg").read_bytes())
    assert main(["lfw", str(tmp_path / "faces"), str(tmp_path / "out"), "--workers", "1"]) == 0
    assert ("test: 1 images are copies of others: lfw/Akhmed_Zakayev/Akhmed_Zakayev_0003.jpg"
            in [finding.what for finding in diagnose(tmp_path / "out").findings])


def test_no_image_of_a_pair_is_left_out(faces, tmp_path, capsys):
    root = faces()
    (root / "lfw" / IMAGES[5]).write_bytes(b"<html>404</html>")
    assert main(["lfw", str(root), str(tmp_path / "out"), "--workers", "1", "--skip_corrupt"]) == 3
    assert "Dean_Barker_0001.jpg: image bytes: not an image" in (said := capsys.readouterr().err)
    assert "of a pair no image can be left out" in said and not list((tmp_path / "out").glob("*.lmdb"))


def test_options_of_a_source_are_given_as_words(faces, tmp_path):
    assert main(["lfw", str(faces()), str(tmp_path / "out"), "--workers", "1", "--train", "true"]) == 0
    assert len(open_archive(tmp_path / "out" / "train.lmdb")) == 3
