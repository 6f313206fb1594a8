"""The playground as a notebook keeps it; tests/browser plays it."""

import html
import re

import pytest

from ctmri_utils import playground


def test_a_notebook_keeps_the_same_page_each_time():
    assert playground()._repr_html_() == playground()._repr_html_()
    assert repr(playground()) == "A CycleGAN to play with: needs a browser"


def test_the_page_lies_whole_in_a_frame_and_asks_for_nothing():
    frame = playground()._repr_html_()
    document = html.unescape(re.search(r'srcdoc="(.*?)" title="', frame, flags=re.S)[1])
    assert document == playground().page
    assert "default-src 'none'" in document
    assert not re.search(r"https?://|\bimport\b|\bfetch\(", document)


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match="cannot write"):
        playground().save(tmp_path / "missing" / "page.html")
