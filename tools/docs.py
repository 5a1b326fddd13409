"""Writes the pages of docs/ and the recipes that are made from the code, so that they cannot drift: `make docs`."""

from pathlib import Path

from lorakiln.advise import evidence, findings
from lorakiln.base.settings import EFFECTS
from lorakiln.cli.settings import settings_table
from tools import recipes

DOCS = Path(__file__).parent.parent / "docs"
RECIPES = DOCS.parent / "recipes"
NOTE = "<!-- Made by `make docs` from the code; change it there. -->"


def settings_page() -> str:
    """docs/settings.md: a table a section."""
    rows = settings_table()
    lines = ["# Settings", "", NOTE, "", "Every setting of a recipe; `kiln settings NAME` shows the same. Effects:", ""]
    lines += [f"- **{name}**: {meaning}" for name, meaning in EFFECTS.items()]
    for section in dict.fromkeys(_section(row["name"]) for row in rows):
        lines += ["", f"## {section or 'top level'}", "", "| setting | default | allowed | effect | what it does |"]
        lines.append("|---|---|---|---|---|")
        for row in rows:
            if _section(row["name"]) == section:
                cells = [f"`{row['name']}`", f"`{row['default']}`", row["allowed"], row["effect"], row["help"]]
                lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


PAGES = {"settings.md": settings_page, "evidence.md": evidence.page, "rules.md": findings.page}


def _section(name: str) -> str:
    return name.rpartition(".")[0]


def main() -> None:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    for file in recipes.FILES:
        (RECIPES / file.name).write_text(recipes.page(file), encoding="utf-8")


if __name__ == "__main__":
    main()
