"""Hooks of mkdocs: links that leave docs/ become the names of their files; the config's keys."""

import json
import re
from pathlib import Path

SCHEMA = Path(__file__).resolve().parents[1] / "training" / "config.schema.json"
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]*)(#[^)]*)?\)")


def on_page_markdown(markdown, page, **_):
    """Returns the text of a page as the site shows it."""
    if "/" not in page.file.src_uri:
        markdown = OUTSIDE.sub(_name, markdown)
    return markdown.replace("<!-- keys -->", keys(json.loads(SCHEMA.read_text(encoding="utf-8"))))


def _name(link):
    text, path = link[1], link[2]
    if path == "README.md":
        return f"[{text}](index.md)"
    return f"`{path}`" if path.startswith(text.strip("`")) else f"{text} (`{path}`)"


def keys(schema):
    """Returns tables of the config's keys, their defaults and what they are for."""
    sections = {"Top-level": schema, **schema["$defs"]}
    lines = []
    for name, section in sections.items():
        if "properties" in section and " " not in name:
            lines += ["", f"## {name}", "", section.get("description", ""), ""]
            lines += ["| key | default | what it is |", "|---|---|---|"]
            lines += [_row(key, value) for key, value in section["properties"].items()]
    return "\n".join(lines)


def _row(key, value):
    default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
    return f"| `{key}` | {default} | {value.get('description', '')} |".replace("\n", " ")
