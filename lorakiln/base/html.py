"""One self-contained HTML page: escaped text, a small style that follows light and dark, pictures inside the file."""

import base64
from collections.abc import Sequence
from html import escape as _escape

_STYLE = """
:root{color-scheme:light dark;--ink:#1d1d1f;--soft:#6b6b70;--line:#d9d9de;--card:#fff;--ground:#f5f5f7;--mark:#b3541e;
--reject:#c0392b;--warn:#b9770e;--note:#2e6da4;--good:#2d7d46}
@media(prefers-color-scheme:dark){:root{--ink:#eee;--soft:#a0a0a6;--line:#3a3a3f;--card:#232327;--ground:#17171a;
--mark:#e08a4f;--reject:#e8695c;--warn:#e0a43a;--note:#6aa9de;--good:#62b97e}}
*{box-sizing:border-box}body{margin:0 auto;max-width:72rem;padding:2rem 1rem 4rem;font:16px/1.5 system-ui,sans-serif;
color:var(--ink);background:var(--ground)}h1{font-size:1.6rem;margin:0}h2{font-size:1.15rem;margin:2.2rem 0 .6rem}
p{margin:.3rem 0}.soft{color:var(--soft)}.cards{display:flex;flex-wrap:wrap;gap:.75rem;margin:1rem 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem 1rem}
.card b{display:block;font-size:1.4rem}.row{display:flex;flex-wrap:wrap;gap:.6rem;margin:.5rem 0;padding:.6rem;
background:var(--card);border:1px solid var(--line);border-radius:.6rem}figure{margin:0;width:10.5rem}
figure img{width:100%;height:10.5rem;object-fit:contain;background:var(--ground);border-radius:.3rem}
figure.best img{outline:3px solid var(--good);outline-offset:-1px}figcaption{font-size:.78rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}td,th{padding:.25rem .6rem .25rem 0;text-align:left;vertical-align:top;
border-bottom:1px solid var(--line);font-weight:400}.bar{background:var(--mark);height:.8rem;border-radius:.2rem}
.tag{font-size:.75rem;padding:.05rem .5rem;border-radius:1rem;color:#fff}.reject{background:var(--reject)}
.warn{background:var(--warn)}.note{background:var(--note)}.good{background:var(--good)}
"""


def escape(text: object) -> str:
    """Text as it may stand anywhere in a page."""
    return _escape(str(text))


def page(title: str, body: str) -> bytes:
    """A whole page in UTF-8; what is no text (a file name's stray bytes) becomes a character reference."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    text = f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'
    return text.encode("utf-8", "xmlcharrefreplace")


def figure(jpeg: bytes, caption: str, best: bool = False) -> str:
    """A picture inside the page with lines of text below it (HTML)."""
    kind = ' class="best"' if best else ""
    data = base64.b64encode(jpeg).decode()
    return (
        f'<figure{kind}><img loading="lazy" alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def bars(rows: Sequence[tuple[str, float, str]]) -> str:
    """A histogram as a table: name, length, text beside the bar."""
    most = max((length for _, length, _ in rows), default=0) or 1
    return "<table>" + "".join(
        f'<tr><td style="width:14rem">{escape(name)}</td><td>'
        f'<div class="bar" style="width:{100 * length / most:.1f}%"></div></td><td class="soft" style="width:12rem">'
        f"{escape(text)}</td></tr>"
        for name, length, text in rows
    ) + "</table>"  # fmt: skip
