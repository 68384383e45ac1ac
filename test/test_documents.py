"""Checks of the documents: links, anchors, line width, and quoted files and names."""

from pathlib import Path
import re
import unicodedata

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md'),
                    *(ROOT / 'models').rglob('*.md')])
FENCE = re.compile(r'^(\s*)(```|~~~)')
LINK = re.compile(r'(?:\]\(|src=")([^()\s"]+)[)"]')
CODE = re.compile(r'`([^`]+)`')
WIDTH = 99
PACKAGE = ROOT / 'lingbot_va_ros'
SOURCES = ('lingbot_va_ros', 'test', 'config', 'docs', 'launch', 'urdf', 'models', 'tools', 'msg',
           'srv', 'action', 'constraints', 'cmake')
# `mux/chase.py`, `config/params/policy.yaml`, `docs/`: from the root or the package folder.
QUOTED_PATH = re.compile(r'[\w-]+/([\w.*-]+/)*([\w*-]+\.[\w.*-]+)?')
QUOTED_NAME = re.compile(r'[A-Z]\w*[a-z]\w*(\.\w+)?|[a-z]+(_[a-z0-9]+)+|_[a-z]\w*')
TABLE = re.compile(r'\|')
ITEM = re.compile(r'\s*([-*]|\d+\.) ')
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


@pytest.fixture(params=DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def document(request) -> Path:
    """Return one of the documents."""
    return request.param


def test_links_lead_somewhere(document):
    assert broken_links(document, document.read_text()) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text('# One page\n## Two, three\n')
    text = ('[a](page.md) [b](page.md#two-three) [c](#one-page) [d](https://example.org)\n'
            '[e](none.md) [f](page.md#none)\n<img src="none.png">\n```\n[g](none.md)\n```\n')
    assert broken_links(page, text) == ['line 2: none.md: no such file',
                                        'line 2: page.md#none: no such heading',
                                        'line 3: none.png: no such file']


def quoted(text: str) -> list[tuple[int, str]]:
    """Return (line number, text) of everything between backticks outside fenced code blocks."""
    return [(number, code) for number, line in lines_outside_code(text)
            for code in CODE.findall(line)]


def missing_files(text: str) -> list[str]:
    """Return one line for each quoted path of the repository that does not exist."""
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    missing = []
    for number, path in quoted(text):
        top = path.split('/')[0]
        if not QUOTED_PATH.fullmatch(path) or top not in folders.union(SOURCES):
            continue
        if not any(any(folder.glob(path.rstrip('/'))) for folder in (ROOT, PACKAGE)):
            missing.append(f'line {number}: {path}')
    return missing


def test_quoted_files_exist(document):
    assert missing_files(document.read_text()) == []


def test_a_missing_file_is_found():
    assert missing_files('`mux/chase.py` `mux/none.py` `config/params/*.yaml` `docs/` `robot/`\n'
                         '`test/none/` `policy/joint_trajectory.py`, `x/y.py`') == [
        'line 1: mux/none.py', 'line 2: test/none/', 'line 2: policy/joint_trajectory.py']


def missing_names(text: str, sources: str) -> list[str]:
    """
    Return one line for each quoted class, method or function that the sources do not define.

    Names are looked for that are written `Class`, `Class.method` or `some_function`, not more.
    """
    words = set(re.findall(r'\w+', sources))
    return [f'line {number}: {code}' for number, code in quoted(text)
            if QUOTED_NAME.fullmatch(code) and not words.issuperset(code.split('.'))]


def test_names_in_explanations_exist():
    sources = '\n'.join(
        path.read_text() for folder in ('lingbot_va_ros', 'msg', 'srv', 'action')
        for path in sorted((ROOT / folder).rglob('*.*')) if path.suffix != '.pyc')
    missing = {str(path.relative_to(ROOT)): names
               for path in (ROOT / 'docs' / 'explanation').glob('*.md')
               if (names := missing_names(path.read_text(), sources))}
    assert missing == {}


def test_a_missing_name_is_found():
    assert missing_names('`Mux.tick` `Mux.tock`\n`Mox` `HOLD` `a_b` `_send` `pick`',
                         'class Mux:\n    def tick(self): _send()') == [
        'line 1: Mux.tock', 'line 2: Mox', 'line 2: a_b']


def wide_lines(text: str) -> list[int]:
    """Return the numbers of the lines of prose that are too wide; tables and code may be wider."""
    return [number for number, line in lines_outside_code(text)
            if len(line) > WIDTH and not line.lstrip().startswith('|')]


def test_prose_is_not_too_wide(document):
    assert wide_lines(document.read_text()) == []


def glued_lines(text: str) -> list[int]:
    """Return the numbers of the lines where a list or table follows other text without a gap."""
    glued, before, number_before = [], '', 0
    for number, line in lines_outside_code(text):
        kind = next((kind for kind in (TABLE, ITEM) if kind.match(line)), None)
        # A gap in the numbers is a code block, after which the site needs an empty line too.
        is_free = before.startswith(('#', ' ')) or (
            not before.strip() and number == number_before + 1)
        if kind is not None and number > 1 and not is_free and not kind.match(before):
            glued.append(number)
        before, number_before = line, number
    return glued


def test_lists_and_tables_begin_after_an_empty_line(document):
    assert glued_lines(document.read_text()) == []


def test_a_list_or_table_without_a_gap_is_found():
    assert glued_lines('# A\n| a |\n|---|\ntext\n- b\n- c\n  more\n- d\n\n- e\n'
                       '```\ncode\n```\n| f |\n\n1. g\n') == [5, 14]


def test_every_page_is_in_the_site():
    def pages(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        values = entry.values() if isinstance(entry, dict) else entry
        return [page for value in values for page in pages(value)]

    listed = pages(yaml.safe_load((ROOT / 'mkdocs.yml').read_text())['nav'])
    assert sorted(listed) == sorted(
        str(path.relative_to(ROOT / 'docs')) for path in (ROOT / 'docs').rglob('*.md'))


def test_documents_that_the_package_names_exist():
    named = re.compile(r'\b(?:docs|models)/[\w/-]+\.md\b')
    folders = ('lingbot_va_ros', 'config', 'launch', 'test', 'tools', 'msg', 'srv', 'action')
    files = [path for folder in folders
             for path in sorted((ROOT / folder).rglob('*'))
             if path.suffix in ('.py', '.yaml', '.yml', '.rviz', '.msg', '.srv', '.action', '.sh')]
    missing = [f'{path.relative_to(ROOT)}: {name}' for path in files
               for name in named.findall(path.read_text()) if not (ROOT / name).exists()]
    assert len(files) > 100 and missing == []
