"""Figures of lesson 3: windows only where there are HU, and each loss in its panel."""

from ctmri_utils.teaching import plots_3


def test_distances_and_scores_of_the_game_have_a_panel_each():
    names = ("adversarial", "cycle", "mind", "discriminator_mri", "discriminator_ct")
    figure = plots_3.loss_panels([dict.fromkeys(names, 1.0)] * 80)
    panels = [axis.get_legend_handles_labels()[1] for axis in figure.axes]
    assert panels == [["cycle", "mind"], ["adversarial", "discriminator_mri", "discriminator_ct"]]

    # Undecided: (0.5 - 1)^2 both ways, and half of (0.5 - 1)^2 + (0.5 - 0)^2.
    dotted = [line.get_ydata()[0] for line in figure.axes[1].lines if len(line.get_ydata()) == 2]
    assert dotted == [0.5, 0.25]
