import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.archive import Meta, Record, write_archive
from deploy import Gallery
from deploy.gallery.__main__ import main
from tests.deploy.inputs import NAMES

CPU = ["--providers", "CPUExecutionProvider"]


@pytest.fixture
def run(capsys):
    """Run a command: (*words) -> (exit code, lines of stdout, lines of stderr)."""
    def run(*words):
        code = main([str(word) for word in words])
        return code, *(text.splitlines() for text in capsys.readouterr())
    return run


@pytest.fixture
def table(tmp_path):
    """A CSV of the seven photos: two cameras, three tags, one photo with neither; and a row of no photo."""
    path = tmp_path / "table.csv"
    rows = [f"{i},{name},{'' if i == 6 else i % 2},{['red', 'blue', ''][i % 3] if i < 6 else ''}"
            for i, name in enumerate([*NAMES, "elsewhere.jpg"])]
    path.write_text("\n".join(["id,name,camera,tag", *rows]), encoding="utf-8-sig")
    return path


@pytest.fixture
def people(run, model, photos, table, tmp_path):
    """A gallery of the seven photos with cameras and tags."""
    folder = tmp_path / "people"
    assert run("build", model, photos, folder, "--table", table, *CPU)[:2] == (0, [f"{folder}: 7 entries of 6"])
    return folder


def found(lines):
    """Names found, of the lines that `search --json` prints: query -> names."""
    results = json.loads("\n".join(lines))["results"]
    return {result["query"]: [hit["name"] for hit in result["hits"]] for result in results}


def test_a_gallery_of_a_folder_has_its_images_by_name(people, expected):
    gallery = Gallery.load(people, verify=True)
    assert (gallery.names, gallery.cameras.tolist()) == (NAMES, [0, 1, 0, 1, 0, 1, -1])
    assert gallery.tags == ["red", "blue", "", "red", "blue", "", ""]
    for name, [hit] in zip(NAMES, gallery.search(expected["embeddings"], 1), strict=True):
        assert (hit.name, round(hit.similarity, 4)) == (name, 1)


def test_a_search_prints_a_table(run, people, model, photos):
    code, lines, _ = run("search", people, model, photos / "more", "--k", 2, *CPU)
    assert (code, lines[0].split()) == (0, ["query", "similarity", "camera", "tag", "name"])
    assert [line.split()[0] for line in lines[1:]] == [f"{i}.JPG" for i in (2, 2, 3, 3, 4, 4, 5, 5, 6, 6)]
    assert lines[3].split() == ["3.JPG", "1.0000", "1", "red", "more/3.JPG"]
    assert lines[9].split() == ["6.JPG", "1.0000", "-", "-", "more/6.JPG"]
    assert len({line.index(word) for line, word in zip(lines, ["name", "more/2.JPG"], strict=False)}) == 1


def test_a_search_prints_json_with_every_digit(run, people, model, photos):
    code, lines, _ = run("search", people, model, photos / "1.jpg", "--k", 3, "--threshold", 0.5, "--json", *CPU)
    said = json.loads("\n".join(lines))
    query = Gallery.load(people).search(np.load(next(people.glob("*/embeddings.npy")))[1:2], 3, threshold=0.5)
    assert (code, said["threshold"], len(said["results"])) == (0, 0.5, 1)
    assert said["results"][0]["query"] == "1.jpg"
    assert said["results"][0]["hits"] == [hit._asdict() for hit in query[0]]


def test_a_search_says_where_nothing_is_near_enough(run, people, model, photos):
    run("remove", people, "0.jpg")
    code, lines, _ = run("search", people, model, photos / "0.jpg", "--threshold", "0.999999", *CPU)
    assert (code, [line.split() for line in lines[1:]]) == (0, [["0.jpg", "-", "-", "-", "nothing"]])


@pytest.mark.parametrize(("options", "names"), [
    (["--camera", "1"], {"1.jpg", "more/3.JPG", "more/5.JPG"}),
    (["--camera", "1", "-1"], {"1.jpg", "more/3.JPG", "more/5.JPG", "more/6.JPG"}),
    (["--tag", "red", "blue"], {"0.jpg", "1.jpg", "more/3.JPG", "more/4.JPG"}),
    (["--tag", "red", "--query_camera", "1"], {"0.jpg"}),
    (["--threshold", "-1"], set(NAMES)),
])
def test_a_search_can_be_narrowed(run, people, model, photos, options, names):
    code, lines, _ = run("search", people, model, photos / "0.jpg", "--json", *options, *CPU)
    assert (code, set(found(lines)["0.jpg"])) == (0, names)


def test_a_search_takes_the_model_s_own_threshold(run, people, model, photos):
    by_level = run("search", people, model, photos, "--threshold", "far=1e-3", "--json", *CPU)
    assert by_level[:2] == run("search", people, model, photos, "--threshold", 0.99, "--json", *CPU)[:2]
    assert all(name in names for name, names in found(by_level[1]).items())


def test_images_are_added_replaced_and_removed(run, people, model, photos, tmp_path, encoded):
    more = tmp_path / "more"
    more.mkdir()
    (more / "1.jpg").write_bytes(encoded[0])
    (more / "new.jpg").write_bytes(encoded[1])
    assert run("add", people, model, more, *CPU)[:2] == (0, [f"{people}: 2 entries added, 8 in all"])
    assert Gallery.load(people).names == [*NAMES[:1], *NAMES[2:], "1.jpg", "new.jpg"]
    assert run("remove", people, "0.jpg", "1.jpg")[:2] == (0, [f"{people}: 2 entries removed, 6 left"])
    assert "new.jpg" in found(run("search", people, model, photos / "1.jpg", "--json", "--k", 1, *CPU)[1])["1.jpg"]
    refused = [f"{people}: no entry 'gone.jpg'; nothing is removed"]
    assert run("remove", people, "new.jpg", "gone.jpg") == (2, [], refused)
    assert len(Gallery.load(people)) == 6


def test_building_again_replaces_the_gallery(run, people, model, photos):
    assert run("build", model, photos / "1.jpg", people, *CPU)[0] == 0
    gallery = Gallery.load(people)
    assert (gallery.names, gallery.cameras.tolist(), gallery.tags) == (["1.jpg"], [-1], [""])


def test_info_says_what_is_there(run, people):
    assert run("info", people) == (0, [
        f"{people}: 7 entries of 6",
        "  model      " + "5eed" * 16,
        "  cameras    0 (3), 1 (3), none (1)",
        "  tags       none (3), red (2), blue (2)",
        "  far=1e-2   0.9000, which accepts 70.0% of genuine pairs",
        "  far=1e-3   0.9900, which accepts 50.0% of genuine pairs",
        "  far=1e-4   needs 300,000 impostor pairs, has 120,000",
    ], [])
    assert run("info", people, "--verify")[1][0].endswith(" of 6, every byte as it was saved")


def test_info_names_the_most_frequent_of_many(run, tmp_path):
    gallery = Gallery("5eed", 2)
    gallery.add(np.array([[1, 0]] * 12, np.float32), [str(i) for i in range(12)], cameras=range(12))
    gallery.save(tmp_path)
    cameras = run("info", tmp_path)[1][2]
    assert cameras.endswith(", 9 (1) and 2 more")


def test_info_finds_a_changed_byte_where_asked(run, people):
    [path] = people.glob("*/embeddings.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run("info", people)[0] == 0
    code, _, [error] = run("info", people, "--verify")
    assert (code, error.startswith(f"{path}: its bytes are not those that were saved;")) == (2, True)


@pytest.fixture
def archive(tmp_path, encoded):
    """The seven images as data.pack writes them: cameras, and persons of which one is junk."""
    path = tmp_path / "gallery.lmdb"
    records = [Record(image, i % 3 - 1, 2 if i else -1, -1, f"{i}é.jpg") for i, image in enumerate(encoded)]
    write_archive(path, records, Meta("folder", "gallery", ["anna", "bo"]))
    return path


def test_an_archive_says_cameras_and_classes_itself(run, model, archive, tmp_path):
    assert run("build", model, archive, tmp_path / "people", *CPU)[0] == 0
    gallery = Gallery.load(tmp_path / "people")
    assert gallery.names == [f"{i}é.jpg" for i in range(7)]
    assert gallery.cameras.tolist() == [-1, 2, 2, 2, 2, 2, 2]
    assert gallery.tags == ["", "anna", "bo", "", "anna", "bo", ""]


def test_a_bad_image_ends_with_3_or_is_left_out_with_its_mark(run, people, model, photos, table):
    (photos / "more" / "2.JPG").write_bytes(b"?")
    code, _, errors = run("build", model, photos, people, "--table", table, *CPU)
    assert code == 3 and "more/2.JPG: not an image" in errors[-1] and errors[-1].endswith("--skip_bad")
    assert len(Gallery.load(people)) == 7
    assert run("build", model, photos, people, "--table", table, "--skip_bad", *CPU)[0] == 0
    gallery = Gallery.load(people)
    assert (gallery.names, gallery.cameras.tolist()) == (NAMES[:2] + NAMES[3:], [0, 1, 1, 0, 1, -1])


TABLES = {
    "columns name and camera, tag or both expected, got path, camera": "path,camera\n0.jpg,1",
    "columns name and camera, tag or both expected, got none": "",
    "columns name and camera, tag or both expected, got name": "name\n0.jpg",
    f"line 3: camera: a whole number from -1 (none) to {2**63 - 1} expected, got 'c3'":
        "name,camera\n0.jpg,1\n1.jpg,c3",
    f"line 2: camera: a whole number from -1 (none) to {2**63 - 1} expected, got '{2**63}'":
        f"name,camera\n0.jpg,{2**63}\n1.jpg,0",
    f"line 2: camera: a whole number from -1 (none) to {2**63 - 1} expected, got '-3'": "name,camera\n0.jpg,-3",
    "line 3: '0.jpg' has a row above; give each image one": "name,tag\n0.jpg,a\n0.jpg,b",
    "no row for '1.jpg', 6 of 7 images have none; give each a row, with an empty camera or tag where there is none":
        "name,tag\n0.jpg,a",
}


@pytest.mark.parametrize("said", TABLES)
def test_a_table_that_does_not_fit_is_refused_before_images_are_embedded(run, model, photos, tmp_path, said):
    table = tmp_path / "t.csv"
    table.write_text(TABLES[said])
    code, _, errors = run("build", model, photos, tmp_path / "people", "--table", table, *CPU)
    assert (code, errors[-1].removeprefix(str(table)).lstrip(": ")) == (2, said)
    assert not (tmp_path / "people").exists()


def test_mistakes_end_with_2_and_one_line(run, people, model, photos, table, tmp_path, with_metadata):
    other = with_metadata("other.onnx", lambda properties: properties.update(fingerprint='"beef"'))
    (photos / "twice.txt").write_text("0.jpg\n1.jpg\n0.jpg")
    absent, binary = tmp_path / "absent", tmp_path / "binary.csv"
    binary.write_bytes(b"name,tag\n\xff")
    for words, said in {
        ("search", people, other, photos): f"{other}: its fingerprint is beef, the gallery was built with a model",
        ("add", people, other, photos): f"{other}: its fingerprint is beef",
        ("add", absent, model, photos): f"{absent}: no gallery there",
        ("remove", absent, "x"): f"{absent}: no gallery there",
        ("search", people, model, absent): f"{absent}: no such folder or file",
        ("search", people, absent, photos): f"{absent}: no such file",
        ("search", people, model, photos, "--threshold", "far=1e-4"): "threshold far=1e-4: not measured",
        ("build", model, photos / "twice.txt", people): "images: '0.jpg' is there twice; name each image once",
        ("build", model, photos, people, "--table", absent): f"[Errno 2] No such file or directory: '{absent}'",
        ("build", model, photos, people, "--table", binary): f"{binary}: not a CSV in UTF-8",
        ("build", model, photos, photos): f"{photos}: holds other files; give a new or an empty folder",
    }.items():
        code, printed, errors = run(*words)
        assert (code, printed, errors[-1][:len(said)]) == (2, [], said), words
    assert len(Gallery.load(people)) == 7


def test_usage_mistakes_end_with_2(run, people, capsys):
    search = ["search", people, "model", "photos"]  # neither is there: options are read before any of them
    for words, said in {
        (): "the following arguments are required", ("find",): "invalid choice: 'find'",
        ("search", people): "arguments are required: model, images",
        ("remove", people): "arguments are required: names",
        (*search, "--k", 0): "argument --k: a whole number from 1 expected, got 0",
        (*search, "--k", "many"): "argument --k: a whole number from 1 expected, got many",
        (*search, "--camera", "-3"): f"argument --camera: a whole number from -1 to {2**63 - 1} expected, got -3",
        (*search, "--query_camera", "x"): "argument --query_camera: a whole number from -1",
    }.items():
        with pytest.raises(SystemExit) as ended:
            run(*words)
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.startswith("usage: python -m deploy.gallery") and said in error


def test_names_and_tags_are_printed_in_one_line_that_leaves_the_terminal_alone(run, model, photos, tmp_path):
    (photos / "0.jpg").rename(photos / "0\udce9.jpg")
    (photos / "1.jpg").rename(photos / "1\n\x1b[2Jé.jpg")
    assert run("build", model, photos, tmp_path / "people", *CPU)[0] == 0
    with Gallery.edit(tmp_path / "people") as gallery:
        gallery.add(np.eye(6, dtype=np.float32)[:1], ["x"], tags=["a\tb"])
    code, lines, _ = run("search", tmp_path / "people", model, photos, "--k", 1, *CPU)
    assert (code, [line.split()[0] for line in lines[1:3]]) == (0, ["0\\udce9.jpg", "1\\n\\x1b[2Jé.jpg"])
    assert lines[2].endswith("  1\\n\\x1b[2Jé.jpg")
    assert "  tags       none (7), a\\tb (1)" in run("info", tmp_path / "people")[1]
    assert set(found(run("search", tmp_path / "people", model, photos, "--k", 1, "--json", *CPU)[1])) == {
        "0\udce9.jpg", "1\n\x1b[2Jé.jpg", *NAMES[2:]}


def test_info_says_none_where_no_entry_has_a_camera_or_tag(run, tmp_path):
    Gallery("5eed", 2).save(tmp_path)
    assert run("info", tmp_path)[1][2:] == ["  cameras    none", "  tags       none"]


def test_commands_take_the_thresholds_of_the_model_that_is_given(run, people, photos, with_metadata):
    def measure_again(properties):
        properties["thresholds"] = json.dumps({"far=1e-2": {"threshold": 1.00003, "tar": 0.0}})

    again = with_metadata("again.onnx", measure_again)
    code, lines, _ = run("search", people, again, photos / "0.jpg", "--threshold", "far=1e-2", "--json", *CPU)
    assert (code, json.loads("\n".join(lines))["threshold"], found(lines)) == (0, 1.00003, {"0.jpg": []})
    assert run("add", people, again, photos / "0.jpg", *CPU)[0] == 0
    assert run("info", people)[1][-1] == "  far=1e-2   1.0000, which accepts 0.0% of genuine pairs"


def test_the_command_runs_as_a_module(people):
    ended = subprocess.run([sys.executable, "-W", "error", "-m", "deploy.gallery", "info", people], text=True,
                           capture_output=True, check=False, cwd=Path(__file__).parents[2])
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{people}: 7 entries of 6")
