"""Glossary, quiz and instructor guide: their terms, links and numbers are right."""

import re

import nbformat
import pytest
import rules

NOTEBOOKS = rules.ROOT / "notebooks"
GLOSSARY = re.findall(
    r"^\| (.+?) \| (.+?) \| \[(\d)\.(\d+)\]\((.+?)\) \|$",
    (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8"),
    flags=re.M,
)
QUIZ = re.split(r"^## ", (NOTEBOOKS / "QUIZ.md").read_text(encoding="utf-8"), flags=re.M)[1:]


def section(lesson, number):
    """All text, code included, below the H2 `number` of a lesson, in lower case."""
    cells = nbformat.read(NOTEBOOKS / lesson, as_version=4).cells
    parts = re.split(r"^## (\d+\.\d+) ", "\n".join(cell.source for cell in cells), flags=re.M)
    return re.sub(r"[\s*_-]+", " ", dict(zip(parts[1::2], parts[2::2]))[number]).lower()


@pytest.mark.parametrize(
    "term, meaning, lesson, number, link", GLOSSARY, ids=[row[0] for row in GLOSSARY]
)
def test_term_stands_in_the_section_it_links(term, meaning, lesson, number, link):
    assert re.sub(r"[\s-]+", " ", term).lower() in section(link, f"{lesson}.{number}")
    assert int(link[:2]) == int(lesson) and len(meaning) > 15


def test_the_glossary_is_sorted_and_covers_the_lessons():
    terms = [row[0].lower() for row in GLOSSARY]
    assert terms == sorted(set(terms))
    assert {int(row[2]) for row in GLOSSARY} == set(range(1, len(rules.LESSONS) + 1))


def test_the_quiz_asks_about_every_lesson():
    assert [re.match(r"\[.+\]\((.+)\.ipynb\)", part)[1] for part in QUIZ] == list(rules.LESSONS)


@pytest.mark.parametrize("part", QUIZ, ids=lambda part: part.partition("]")[0])
def test_each_question_has_three_answers_and_a_folded_reason(part):
    pairs = re.findall(
        r"^(\d)\. (.+)\n\n   - a\) (.+)\n   - b\) (.+)\n   - c\) (.+)\n\n"
        r"   <details><summary>Answer</summary>\n\n   \*\*([abc])\)\*\* (.+)\n\n   </details>$",
        part,
        flags=re.M,
    )
    numbers = [int(pair[0]) for pair in pairs]
    assert numbers == [1, 2, 3, 4, 5]
    assert part.count("<details>") == len(pairs) and all(len(pair[-1]) > 20 for pair in pairs)
    assert all(len(set(pair[2:5])) == 3 for pair in pairs)


def test_neither_position_nor_length_tells_the_right_answer():
    options = r"- a\) (.+)\n   - b\) (.+)\n   - c\) (.+)\n\n.*\n\n   \*\*([abc])"
    questions = re.findall(options, "".join(QUIZ))
    answers = "".join(answer for *_, answer in questions)
    assert all(0.2 < answers.count(letter) / len(answers) < 0.5 for letter in "abc")

    longest = 0
    for *texts, answer in questions:
        longest += max(texts, key=len) == texts["abc".index(answer)]
    assert longest / len(answers) < 0.6


@pytest.mark.parametrize("page", ["GLOSSARY.md", "QUIZ.md", "assignments/README.md"])
def test_links_lead_to_files(page):
    path = NOTEBOOKS / page
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8"))
    assert [
        link for link in links if "://" not in link and not (path.parent / link).is_file()
    ] == []


def test_the_guide_knows_every_assignment():
    guide = (NOTEBOOKS / "assignments" / "README.md").read_text(encoding="utf-8")
    for path in sorted((NOTEBOOKS / "assignments" / "source").glob("*/*.ipynb")):
        number, title = re.search(
            r"^# Assignment (\d): (.+)$",
            nbformat.read(path, as_version=4).cells[0].source,
            flags=re.M,
        ).groups()
        assert f"| {number} {title} |" in guide and path.parent.name == path.stem
