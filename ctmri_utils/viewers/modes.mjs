// The ways of looking at one scan or of comparing two: their names, sliders and colours.

const GAP = 2; // columns between two panes

const MODES = {
  single: { title: "Slice" },
  wipe: { title: "Wipe", slider: "Divider" },
  side: { title: "Side by side" },
  blend: { title: "Blend", slider: "Share of the second" },
  difference: {
    title: "Difference",
    slider: "Full colour at",
    legend: "red: the second is higher, blue: lower",
  },
  checker: { title: "Checkerboard", slider: "Square" },
  flicker: { title: "Flicker", slider: "Changes a second" },
  uncertainty: {
    title: "Uncertainty",
    slider: "Full colour at",
    legend: "orange: the error to expect",
  },
};

// What the position slider (0 to 100) stands for, mode by mode

function fullColourAt(position, limit) {
  return Math.max((limit * (100 - position)) / 50, limit / 50);
}

function squareSide(position, columns) {
  return Math.max(1, Math.round((columns * position) / 400));
}

// At most 3 a second: more can harm people with photosensitive epilepsy.
function changesPerSecond(position) {
  return 0.5 + position / 40;
}

function positionText(mode, position, spec, columns) {
  switch (mode) {
    case "wipe":
    case "blend":
      return `${position} %`;
    case "difference":
      return `±${short(fullColourAt(position, spec.limit))} ${spec.unit}`;
    case "uncertainty": {
      const { limit, unit } = spec.images[2];
      return `${short(fullColourAt(position, limit))} ${unit}`;
    }
    case "checker":
      return `${squareSide(position, columns)} pixels`;
    case "flicker":
      return changesPerSecond(position).toFixed(1);
    default:
      return "";
  }
}

// Returns a function for the viewer's mode: (index of a value, x, y on the canvas) -> pixel.
function painter(viewer) {
  const { mode, position } = viewer.state;
  const { columns } = viewer.plane();
  const { images } = viewer.spec;
  const first = viewer.greyLevel(images[0]);
  const second = images.length > 1 ? viewer.greyLevel(images[1]) : first;

  switch (mode) {
    case "single":
      return (i) => grey(first(i));
    case "wipe": {
      const split = Math.round((columns * position) / 100);
      return (i, x) => grey(x < split ? first(i) : second(i));
    }
    case "side":
      return (i, x) => {
        if (x < columns) return grey(first(i));
        return x < columns + GAP ? BETWEEN_PANES : grey(second(i));
      };
    case "blend":
      return (i) => grey(round(((100 - position) * first(i) + position * second(i)) / 100));
    case "checker": {
      const side = squareSide(position, columns);
      const isSecond = (x, y) => (Math.floor(x / side) + Math.floor(y / side)) % 2;
      return (i, x, y) => grey(isSecond(x, y) ? second(i) : first(i));
    }
    case "flicker":
      return (i) => grey(viewer.swapped ? second(i) : first(i));
    case "difference":
      return differencePainter(viewer);
    case "uncertainty":
      return uncertaintyPainter(viewer, second);
  }
}

function differencePainter(viewer) {
  const difference = viewer.difference();
  const limit = fullColourAt(viewer.state.position, viewer.spec.limit);
  return (i) => {
    const error = difference(i);
    return tint(255, error < 0 ? BLUE : RED, Math.abs(error) / limit);
  };
}

function uncertaintyPainter(viewer, second) {
  const image = viewer.spec.images[2];
  const uncertainty = viewer.physical(image);
  const limit = fullColourAt(viewer.state.position, image.limit);
  return (i) => tint(second(i), ORANGE, uncertainty(i) / limit);
}
