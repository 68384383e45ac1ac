"""Checks on the documents: links between files, anchors, line width, and names of files."""

from pathlib import Path
import re
import unicodedata

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'),
                    *(ROOT / 'models').rglob('*.md')])
FENCE = re.compile(r'^(\s*)(```|~~~)')
LINK = re.compile(r'\]\(([^()\s]+)\)')
CODE = re.compile(r'`[^`]*`')
HEADING = re.compile(r'^#{1,6} +(.*?)\s*#*$')


def lines_outside_code(text: str) -> list[tuple[int, str]]:
    """Return (line number, line) of every line that lies outside fenced code blocks."""
    kept, inside = [], False
    for number, line in enumerate(text.splitlines(), 1):
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append((number, line))
    return kept


def plain_heading(heading: str) -> str:
    """Return the text of a heading without links and marks."""
    return re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', heading).replace('`', '').replace('*', '')


def site_anchor(heading: str) -> str:
    """Return the anchor that Python-Markdown, and so the site, gives to a heading."""
    text = unicodedata.normalize('NFKD', plain_heading(heading)).encode('ascii', 'ignore').decode()
    return re.sub(r'[-\s]+', '-', re.sub(r'[^\w\s-]', '', text).strip().lower())


def github_anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r'[^\w\s-]', '', plain_heading(heading).lower()).replace(' ', '-')


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document that hold on GitHub and on the site alike."""
    headings = [found[1] for _, line in lines_outside_code(path.read_text())
                if (found := HEADING.match(line))]
    return {site_anchor(heading) for heading in headings
            if site_anchor(heading) == github_anchor(heading)}


def broken_links(path: Path, text: str) -> list[str]:
    """Return one line for each relative link of a document that leads nowhere."""
    broken = []
    for number, line in lines_outside_code(text):
        for target in LINK.findall(CODE.sub('', line)):
            if re.match(r'[a-z]+:', target):
                continue
            name, _, anchor = target.partition('#')
            file = path.parent / name if name else path
            if not file.exists():
                broken.append(f'line {number}: {target}: no such file')
            elif anchor and anchor not in anchors(file):
                broken.append(f'line {number}: {target}: no such heading')
    return broken


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert broken_links(path, path.read_text()) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# One page\n## Two, three\n')
    text = ('[a](page.md) [b](page.md#two-three) [c](#one-page) [d](https://example.org)\n'
            '[e](none.md) [f](page.md#none)\n```\n[g](none.md)\n```\n')
    assert broken_links(page, text) == ['line 2: none.md: no such file',
                                        'line 2: page.md#none: no such heading']
