"""What mkdocs needs to be told: which files beside `docs/` are pages, and where links between them lead in the site."""

import posixpath
import re
from pathlib import Path
from typing import Any

from generated import pages
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
#: files of the repository that are pages, and their names in the site
SHOWN = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "datasets/README.md": "cards.md",
}
LINK = re.compile(r"(!?)\[((?:!\[[^\]]*\]\([^)]*\)|[^\[\]])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
LOADED = re.compile(r'<(?:script|img|iframe)[^>]* src="?https?:|<link[^>]* rel="?(?:stylesheet|pre)[^>]*https?:')


def site_path(path: str) -> str | None:
    """Where a file of the repository is in the site; None where it is not."""
    if path in SHOWN:
        return SHOWN[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.startswith("results/") and (ROOT / path).is_file() else None


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are elsewhere, and those that are written."""
    tables = (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "results").rglob("*")) if shown(path))
    for path in (*SHOWN, *tables):
        files.append(File.generated(config, str(site_path(path)), abs_src_path=str(ROOT / path)))
    files.append(File.generated(config, "site.css", abs_src_path=str(Path(__file__).with_name("site.css"))))
    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    return files


def shown(path: Path) -> bool:
    """Whether a file of `results/` is a committed table or picture, and no store of runs that lies there, too."""
    return path.suffix in (".md", ".svg", ".csv", ".txt", ".toml") and "artifacts" not in path.parts


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages."""
    names = {target: source for source, target in SHOWN.items()}
    uri = page.file.src_uri
    if page.file.generated_by and page.file.abs_src_path is None:
        return markdown
    here = names.get(uri) or (uri if uri.startswith("results/") else f"docs/{uri}")

    def moved(match: re.Match[str]) -> str:
        mark, words, target, anchor = match.groups("")
        words = LINK.sub(moved, words)  # a picture that is a link
        if ":" in target:
            return f"{mark}[{words}]({target}{anchor})"
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        there = site_path(path)
        if there is None and not (ROOT / path).exists():
            raise PluginError(f"{here}: no file {path}")
        link = there and posixpath.relpath(there, posixpath.dirname(uri) or ".")
        return f"{mark}[{words}]({link}{anchor})" if link else words

    return LINK.sub(moved, markdown)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would load something from elsewhere."""
    if found := LOADED.search(output):
        raise PluginError(f"{page.file.src_uri}: loads from elsewhere: {found[0]}")
    return output
