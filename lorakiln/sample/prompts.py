"""Prompt files: one picture a line, with kohya's flags after the prompt."""

from dataclasses import replace
from pathlib import Path

from lorakiln.base.errors import UserError
from lorakiln.sample.generate import Request

# flag -> (field of Request, how its text is read)
FLAGS = {
    "w": ("width", int),
    "h": ("height", int),
    "d": ("seed", int),
    "s": ("steps", int),
    "l": ("cfg", float),
    "n": ("negative", str),
    "ss": ("sampler", str),
}


def read(path: Path, defaults: Request) -> list[Request]:
    """The requests of a UTF-8 prompt file; UserError naming file and line for what cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error
    return parse(text, defaults, str(path))


def parse(text: str, defaults: Request, where: str = "prompts") -> list[Request]:
    """A request for each line that is neither empty nor a # comment: `1girl, smiling --n lowres --w 832 --d 7`.

    --w width, --h height, --d seed, --s steps, --l cfg, --n negative prompt, --ss sampler; the rest is `defaults`. Any
    other flag is a UserError: kohya's --am, --ow and so on would have no effect here.
    """
    requests = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            requests.append(_request(line, defaults, f"{where} line {number}"))
    if not requests:
        raise UserError(f"{where}: there is no prompt in it")
    return requests


def _request(line: str, defaults: Request, where: str) -> Request:
    prompt, *flags = f" {line.strip()}".split(" --")
    fields: dict[str, int | float | str] = {"prompt": prompt.strip()}
    for flag in flags:
        name, _, value = flag.partition(" ")
        if name not in FLAGS:
            known = ", ".join(f"--{known}" for known in FLAGS)
            raise UserError(f"{where}: unknown flag '--{name}'; choose from {known}")
        field, reader = FLAGS[name]
        if field in fields:
            raise UserError(f"{where}: --{name} is given twice")
        try:
            fields[field] = reader(value.strip())
        except ValueError as error:
            raise UserError(f"{where}: --{name} {value.strip()}: must be a number") from error
    return replace(defaults, **fields)
