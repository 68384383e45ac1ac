"""
Bring files outside docs/ that documents link to into the site, under repository/.

MkDocs knows only the files of docs_dir. Documents also link to files beside it, such as
models/README.md, by paths that hold in the checkout. These hooks add such files to the site and
rewrite the links. A link to a file that does not exist stays as it is, so that a strict build
fails on it.
"""

import os
from pathlib import Path
import re

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
FOLDER = 'repository'
LINK = re.compile(r'(?<=\]\()([^()\s#]+)')


def on_files(files, config):
    """Add every file of the repository that a document links to, and what that one links to."""
    waiting = [(file.src_uri, Path(file.abs_src_path)) for file in files]
    while waiting:
        uri, path = waiting.pop()
        if path.suffix != '.md':
            continue
        for target in _targets(path, path.read_text()):
            found = _uri(target)
            if files.get_file_from_path(found) is None:
                files.append(File.generated(config, found, abs_src_path=str(target)))
                waiting.append((found, target))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrite the links of a page from paths in the checkout to paths in the site."""
    path, folder = Path(page.file.abs_src_path), Path(page.file.src_uri).parent

    def rewritten(found):
        target = _target(path, found[1])
        return os.path.relpath(_uri(target), folder) if target else found[1]

    return LINK.sub(rewritten, markdown)


def _targets(path, text):
    return filter(None, (_target(path, link) for link in LINK.findall(text)))


def _target(path, link):
    """Return the file of the repository that a relative link of a document leads to, or None."""
    target = (path.parent / link).resolve()
    return target if target.is_file() and target.is_relative_to(ROOT) else None


def _uri(target):
    """Return where a file of the repository lies in the site, as a path below docs_dir."""
    docs = ROOT / 'docs'
    if target.is_relative_to(docs):
        return target.relative_to(docs).as_posix()
    return f'{FOLDER}/{target.relative_to(ROOT).as_posix()}'
