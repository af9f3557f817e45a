"""The command that prepares data sets: its arguments, its summary, its exit codes."""

from pathlib import Path

import pytest

from scripts import prepare_dataset


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Puts a recorder in the place of what unpacks archives."""
    calls = []

    def unpack(*args) -> dict[str, int]:
        calls.append(args)
        root = next(arg for arg in args if isinstance(arg, Path) and arg.name == "data")
        for wnid in ("n00000001", "n00000002"):
            (root / "val" / wnid).mkdir(parents=True)
        return {"num_train": 1234, "num_val": 56}

    for name in ("write_tiny_imagenet", "write_imagenet"):
        monkeypatch.setattr(prepare_dataset, name, unpack)
    return calls


@pytest.mark.parametrize(
    ("options", "classes"), [([], None), (["--classes", "30"], 30), (["--classes", "names.txt"], Path("names.txt"))]
)
def test_tiny_imagenet_takes_an_archive_and_classes(calls, tmp_path, capsys, options, classes):
    root = tmp_path / "data"
    prepare_dataset.main(["tiny-imagenet", "--archive", "tiny.zip", "--output", str(root), *options])
    assert calls == [(Path("tiny.zip"), root, classes)]
    assert capsys.readouterr().out == f"{root}: 1,234 training and 56 validation images, 2 classes\n"


def test_imagenet_takes_three_archives(calls, tmp_path):
    archives = ["--train-tar", "train.tar", "--val-tar", "val.tar", "--devkit", "devkit.tar.gz"]
    prepare_dataset.main(["imagenet", *archives, "--output", str(tmp_path / "data")])
    assert calls == [(Path("train.tar"), Path("val.tar"), Path("devkit.tar.gz"), tmp_path / "data")]


def test_digits_are_composed(tmp_path, capsys):
    root = tmp_path / "digits"
    prepare_dataset.main(["digits", "--output", str(root), "--num_train", "10", "--num_val", "20"])
    assert capsys.readouterr().out == f"{root}: 10 training and 20 validation images, 10 classes\n"
    assert len(list(root.glob("train/*/*.png"))) == 10


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("digits --num_train 9", "error: --num_train and --num_val must be 10 or more: one image per class\n"),
        ("tiny-imagenet --archive {0}/no.zip", "error: no archive at {0}/no.zip: expected Tiny ImageNet's zip file\n"),
        (
            "imagenet --train-tar {0}/a --val-tar {0}/b --devkit {0}/c",
            "error: no archive at {0}/c: expected one of ImageNet's official files\n",
        ),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, said):
    with pytest.raises(SystemExit) as stop:
        prepare_dataset.main([*arguments.format(tmp_path).split(), "--output", str(tmp_path / "data")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == said.format(tmp_path)
    assert not (tmp_path / "data").exists()
