"""A CycleGAN to play with: clouds of points in the plane, trained live in the browser."""

from __future__ import annotations

from pathlib import Path

from .html_pages import PAGE, POLICY, frame_element, joined, write_page

TITLE = "A CycleGAN to play with"


class Playground:
    """A page that a notebook shows in a frame; it needs no kernel and no network."""

    @property
    def page(self) -> str:
        """The whole HTML page."""
        script = joined(
            "numbers.mjs",
            "playground_cyclegan.mjs",
            "playground_clouds.mjs",
            "playground.mjs",
        )
        style = joined("viewer.css", "playground.css")
        return PAGE.format(
            title=TITLE, policy=POLICY, css=style, script=script, body=joined("playground.html")
        )

    def save(self, path: str | Path) -> None:
        """Write the page into one HTML file, for readers without a notebook.

        Raises:
            OSError: the file cannot be written.
        """
        write_page(path, self.page)

    def __repr__(self) -> str:
        return f"{TITLE}: needs a browser"

    def _repr_html_(self) -> str:
        return frame_element(self.page, TITLE, f"<p>{TITLE}: run this cell to see it.</p>")


def playground() -> Playground:
    """Two generators and two discriminators that translate a cloud of points into another.

    The page trains them with the losses and the optimizer of this package, in JavaScript. Readers
    choose the weights of the losses, the learning rate, the seed and the clouds, and see the
    translation as arrows.

    Source: the idea of GAN Lab (Kahng et al. 2019) and the TensorFlow Playground.
    """
    return Playground()
