"""The docs say what the code does: generated pages are fresh, links lead somewhere, commands exist."""

import re
import shlex

import pytest
from typer.main import get_command

from lorakiln.cli import app
from tools import recipes
from tools.docs import DOCS, PAGES, RECIPES

ROOT = DOCS.parent
WRITTEN = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*.md")])


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says_now(name):
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run make docs"


@pytest.mark.parametrize("file", recipes.FILES, ids=lambda file: file.name)
def test_a_generated_recipe_is_what_the_code_says_now(file):
    assert (RECIPES / file.name).read_text(encoding="utf-8") == recipes.page(file), "run make docs"


def test_each_training_row_has_its_recipe():
    assert {file.row for file in recipes.FILES} == {f"T{row}" for row in range(1, 11)}
    made = {file.name for file in recipes.FILES}
    assert {path.name for path in RECIPES.glob("t[0-9]*.toml")} == made, "a file that nothing makes"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_their_options(page):
    verbs = get_command(app).commands
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if "kiln" not in words and ".venv/bin/kiln" not in words:
                continue
            verb, *rest = words[[w.endswith("kiln") for w in words].index(True) + 1 :]
            if verb.startswith("-"):
                continue
            assert verb in verbs, f"{page.name}: kiln {verb}"
            command = verbs[verb]
            while rest and rest[0] in getattr(command, "commands", {}):
                command = command.commands[rest.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            unknown = {word.split("=")[0] for word in rest if word.startswith("--")} - known
            assert not unknown, f"{page.name}: kiln {verb} has no {unknown}"


def test_every_verb_has_help():
    for name, verb in get_command(app).commands.items():
        assert verb.help, f"kiln {name}"
        for parameter in verb.params:
            assert getattr(parameter, "help", "x"), f"kiln {name} {parameter.name}"


def test_the_project_speaks_of_itself_alone():
    forbidden = re.compile("/wo" + "rk/|\\bses" + r"sion(s)? \d|issue \d|#\d+ is")
    for path in [*ROOT.rglob("*.py"), *WRITTEN]:
        if ".venv" not in path.parts and "build" not in path.parts:
            found = forbidden.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path}: {found and found.group()}"


def test_the_changelog_names_this_version():
    from lorakiln import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
