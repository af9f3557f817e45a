"""READMEs: links lead somewhere, commands parse, the Python of README.md runs, the committed plot is today's."""

import fnmatch
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import matplotlib
import pytest
from PIL import Image

from misc.datasets.digits import write_data_set
from misc.files import ROOT
from scripts import report

FOLDERS = ("config", "misc", "model", "saliency_maps", "scripts", "resources/weights")
READMES = [ROOT / "README.md", *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("README.md"))]
FILES = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for pattern in ("*.*", "resources/*.*", "tests/**/*.*", *(f"{folder}/**/*.*" for folder in FOLDERS))
    for path in ROOT.glob(pattern)
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED_FILE = re.compile(r"[\w./*-]+\.(?:py|sh|yaml|csv|svg|safetensors)")
ARRAY = re.compile(r"(\w+)=\((.*)\)")
INLINE_COMMAND = re.compile(r"`((?:python|bash|torchrun) [^`]+)`")
each_readme = pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))


class Command(NamedTuple):
    """A script of this repository and its arguments."""

    script: str
    args: list[str]


def blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [code for name, code in BLOCK.findall(text) if name == language]


def prose(text: str) -> str:
    """Return the text without its code blocks."""
    return BLOCK.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(readme: Path) -> list[str]:
    """Return the relative links and anchors that lead nowhere."""
    return [link for link in LINK.findall(prose(readme.read_text())) if not leads_somewhere(readme, link)]


EDGE_CLIENT = "misc/deploy/edge_client.py"
NEED_RAY = ("scripts/checks/ray_replicas.py",)  # misc/deploy/requirements-ray.txt
OTHER_PROGRAMS = ("source", "export", "cp", "pip", "curl", "serve", "ray")


def leads_somewhere(readme: Path, link: str) -> bool:
    if link.startswith(("http://", "https://")):
        return True
    name, _, anchor = link.partition("#")
    target = readme.parent / name if name else readme
    target = target / "README.md" if anchor and target.is_dir() else target
    return target.exists() and (not anchor or anchor in anchors(target.read_text()))


def missing_files(readme: Path) -> list[str]:
    """Return the files named in backticks that the repository does not have, in whichever folder."""
    names = filter(NAMED_FILE.fullmatch, re.findall(r"`([^`\n]+)`", prose(readme.read_text())))
    return [name for name in names if not fnmatch.filter(FILES, f"*/{name}")]


def commands(text: str) -> Iterator[Command]:
    """Yield the commands of code blocks, bash arrays expanded, and those in running text that have arguments."""
    arrays: dict[str, str] = {}
    for code in blocks(text, "bash"):
        for line in code.replace("\\\n", " ").splitlines():
            if array := ARRAY.fullmatch(line):
                arrays[f'"${{{array[1]}[@]}}"'] = array[2]
                continue
            for name, words in arrays.items():
                line = line.replace(name, words)
            yield from command_of(line)
    for line in INLINE_COMMAND.findall(prose(text)):
        yield from (command for command in command_of(line) if command.args)


def command_of(line: str) -> Iterator[Command]:
    """Yield the line's command on a script, if it is one.

    Raises:
        ValueError: a program that no README should need.
    """
    words = shlex.split(line, comments=True)
    if not words or re.match(r"\w+=\$\(", words[0]):
        return
    words = [word for word in words if not re.match(r"[A-Z_]+=", word) and word != "srun"]
    program, *rest = Path(words[0]).name, *words[1:]
    if program == "torchrun":
        script = next(index for index, word in enumerate(rest) if word.endswith(".py"))
        yield Command(rest[script], rest[script + 1 :])
    elif program in ("python", "bash") and rest[0] != "-m":
        script = EDGE_CLIENT if Path(rest[0]).name == Path(EDGE_CLIENT).name else rest[0]  # the export has a copy
        yield Command(script, rest[1:])
    elif program not in ("python", *OTHER_PROGRAMS):
        raise ValueError(f"neither python, torchrun nor bash: {line}")


def mistakes(command: Command) -> list[str]:
    """Return what is wrong with a command: a script or config that is missing, or arguments that it does not take."""
    missing = [word for word in (command.script, *command.args) if is_missing(word)]
    if missing or not command.script.endswith(".py") or (command.script in NEED_RAY and find_spec("ray") is None):
        return missing
    module = import_module(".".join(Path(command.script).with_suffix("").parts))
    parse = module.get_argparser().parse_args if hasattr(module, "get_argparser") else module.parse_args
    try:
        parse(command.args)
    except SystemExit:
        return [f"{command.script} does not take {' '.join(command.args)}"]
    return []


def is_missing(word: str) -> bool:
    is_of_the_repository = word.startswith("config/") or word.endswith((".py", ".sh"))
    return is_of_the_repository and not (ROOT / word).is_file()


def test_there_are_readmes():
    assert len(READMES) >= 10


def test_the_readme_is_read_in_five_minutes():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


@each_readme
def test_links_lead_somewhere(readme):
    assert broken_links(readme) == []


@each_readme
def test_named_files_exist(readme):
    assert missing_files(readme) == []


@each_readme
def test_commands_parse(readme):
    assert [mistake for command in commands(readme.read_text()) for mistake in mistakes(command)] == []


def test_planted_faults_are_found(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "# A title, with `code`\n[good](README.md#a-title-with-code) [there](#nowhere) [gone](gone.md)\n"
        "`model/gone.py`\n"
        "```bash\npython scripts/gone.py\npython scripts/compare_maps.py A B --gone\n"
        "torchrun --nproc_per_node 2 main_classification_torchdistill.py --config config/gone.yaml\n"
        "VENV=.venv bash scripts/gone.sh\npython scripts/compare_maps.py \\\n    A B  # fine\n"
        'maps=(A B --none)\npython scripts/compare_maps.py "${maps[@]}"\n```\n'
        "`python scripts/compare_maps.py A`, `python scripts/compare_maps.py`\n"
    )
    assert broken_links(readme) == ["#nowhere", "gone.md"]
    assert missing_files(readme) == ["model/gone.py"]
    assert [mistake for command in commands(readme.read_text()) for mistake in mistakes(command)] == [
        "scripts/gone.py",
        "scripts/compare_maps.py does not take A B --gone",
        "config/gone.yaml",
        "scripts/gone.sh",
        "scripts/compare_maps.py does not take A B --none",
        "scripts/compare_maps.py does not take A",
    ]
    with pytest.raises(ValueError, match="rm -rf"):
        list(commands("```bash\nrm -rf streams\n```\n"))


def test_python_of_the_readme_classifies_an_image(tmp_path, monkeypatch):
    (code,) = blocks((ROOT / "README.md").read_text(), "python")
    write_data_set(tmp_path / "digits", num_train=10, num_val=20)
    Image.open(next((tmp_path / "digits/val/3").iterdir())).resize((200, 130)).save(tmp_path / "photo.png")
    for folder in ("config", "resources"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    result: dict = {}
    exec(compile(code, "README.md", "exec"), result)
    assert 11 < len(result["stream"]) < 150
    assert result["logits"].shape == (1, 10)
    assert result["logits"].argmax() == 3


def test_the_committed_plot_is_that_of_the_committed_results(tmp_path, monkeypatch):
    committed = (ROOT / "resources/rate_accuracy.svg").read_text()
    if f"Matplotlib v{matplotlib.__version__}," not in committed:
        pytest.skip("plotted by another version of Matplotlib")
    text = (ROOT / "config/tiny_imagenet/README.md").read_text()
    args = next(command.args for command in commands(text) if command.script == "scripts/report.py" and command.args)
    monkeypatch.chdir(ROOT)
    report.main([*args[: args.index("-o")], "-o", str(tmp_path)])
    assert (tmp_path / "rate_accuracy.svg").read_text() == committed
