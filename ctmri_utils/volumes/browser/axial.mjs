// Axial slices, the way the networks know them, and back; as axial_slices.py.
//
// A grid is { values, shape, strides, affine }: value (a, b, c) lies at a, b and c times strides.

const FINEST_COARSENING = 1.01;

// The strides of an array whose last index runs fastest.
const cStrides = ([, rows, columns]) => [rows * columns, columns, 1];
const fileStrides = ([columns, rows]) => [1, columns, columns * rows];

// A Gaussian along each axis, as ndimage.gaussian_filter with mode "nearest".
function smoothed({ values, shape, strides }, sds) {
  let source = values;
  for (const axis of AXES) {
    if (sds[axis] > 1e-15) source = smoothedAlong(source, shape, strides, axis, sds[axis]);
  }
  return source;
}

function smoothedAlong(source, shape, strides, axis, sd) {
  const radius = Math.floor(4 * sd + 0.5);
  const kernel = Float64Array.from({ length: 2 * radius + 1 }, (_, k) =>
    Math.exp((-0.5 * (k - radius) ** 2) / sd ** 2),
  );
  const sum = kernel.reduce((a, b) => a + b);
  const [first, second] = AXES.filter((other) => other !== axis);
  const result = new Float32Array(source.length);
  const line = new Float64Array(shape[axis] + 2 * radius);
  for (let p = 0; p < shape[first]; p++) {
    for (let q = 0; q < shape[second]; q++) {
      const start = p * strides[first] + q * strides[second];
      for (let k = 0; k < line.length; k++) {
        line[k] = source[start + clamp(k - radius, 0, shape[axis] - 1) * strides[axis]];
      }
      for (let i = 0; i < shape[axis]; i++) {
        let total = 0;
        for (let k = 0; k < kernel.length; k++) total += kernel[k] * line[i + k];
        result[start + i * strides[axis]] = total / sum;
      }
    }
  }
  return result;
}

// The image on another grid, by linear interpolation; axes that get coarser are smoothed first.
function resample(grid, toAffine, shape, strides, background) {
  const toOld = product(inverse(grid.affine), toAffine);
  const [oldSides, newSides] = [grid.affine, toAffine].map(sidesOf);
  const likeness = AXES.map((a) =>
    AXES.map((b) => {
      const along = dot(columnOf(grid.affine, a), columnOf(toAffine, b));
      return along / oldSides[a] / newSides[b];
    }),
  );
  const coarser = partners(likeness).map((b, a) => Math.abs(toOld[a][b]));
  const sds = coarser.map((step) => Math.max((step - 1) / 2, 0));
  const isCoarser = coarser.some((step) => step > FINEST_COARSENING);
  const values = isCoarser ? smoothed(grid, sds) : grid.values;

  const valueAt = interpolator({ ...grid, values }, background);
  const [[xa, xb, xc, x0], [ya, yb, yc, y0], [za, zb, zc, z0]] = toOld;
  const result = new Float32Array(shape[0] * shape[1] * shape[2]);
  for (let a = 0; a < shape[0]; a++) {
    for (let b = 0; b < shape[1]; b++) {
      let next = a * strides[0] + b * strides[1];
      for (let c = 0; c < shape[2]; c++, next += strides[2]) {
        const x = xa * a + xb * b + xc * c + x0;
        const y = ya * a + yb * b + yc * c + y0;
        const z = za * a + zb * b + zc * c + z0;
        result[next] = valueAt(x, y, z);
      }
    }
  }
  return { values: result, shape, strides, affine: toAffine };
}

// Returns a function: place in the grid -> value; beyond the last voxels lies background.
function interpolator({ values, shape: [depth, rows, columns], strides }, background) {
  const [step, down, right] = strides;
  const at = (a, b, c) => {
    const isInside = a >= 0 && a < depth && b >= 0 && b < rows && c >= 0 && c < columns;
    return isInside ? values[a * step + b * down + c * right] : background;
  };
  // Between eight voxels of the grid, almost everywhere.
  const inside = (i, w) => values[i] * (1 - w) + values[i + right] * w;
  const across = (a, b, c, w) => at(a, b, c) * (1 - w) + at(a, b, c + 1) * w;

  return (x, y, z) => {
    const a = Math.floor(x);
    const b = Math.floor(y);
    const c = Math.floor(z);
    if (a < -1 || b < -1 || c < -1 || a >= depth || b >= rows || c >= columns) return background;

    const u = x - a;
    const v = y - b;
    const w = z - c;
    if (a >= 0 && b >= 0 && c >= 0 && a < depth - 1 && b < rows - 1 && c < columns - 1) {
      const i = a * step + b * down + c * right;
      const near = inside(i, w) * (1 - v) + inside(i + down, w) * v;
      const far = inside(i + step, w) * (1 - v) + inside(i + step + down, w) * v;
      return near * (1 - u) + far * u;
    }
    const near = across(a, b, c, w) * (1 - v) + across(a, b + 1, c, w) * v;
    const far = across(a + 1, b, c, w) * (1 - v) + across(a + 1, b + 1, c, w) * v;
    return near * (1 - u) + far * u;
  };
}

// Axial slices of size x size pixels, the head in the middle; `volume` is as `readVolume` gives it.
function axialStack(volume, { size, pixel_mm: pixelMm }) {
  const isCT = volume.modality === "ct";
  const background = isCT ? PY.AIR_HU : extremes(volume.values)[0];
  const { affine, shape } = axialGrid(volume, pixelMm);
  checkShape(shape);

  const notes = [];
  const values = isCT ? withAir(volume, notes) : volume.values;
  const source = { ...volume, values, strides: fileStrides(volume.shape) };
  const field = resample(source, affine, shape, cStrides(shape), background);
  const head = volumeHeadMask(field, volume.modality);
  if (!head.includes(1)) refuse("no head was found in it");
  headNotes(head, shape, sidesOf(affine), notes);

  const [top, left] = middleOf(head, shape).map((middle) => Math.floor(middle - (size - 1) / 2));
  const start = applied(affine, [0, top, left]);
  const cutAffine = affine.map((row, k) => [...row.slice(0, 3), start[k]]);
  const square = cut(field.values, shape, top, left, size, size, background);
  const headInSquare = cut(head, shape, top, left, size, size, 0);
  const lost = 1 - count(headInSquare) / count(head);
  if (lost > 1e-3) notes.push(say("{:.1%} of the head lies outside", lost, size * pixelMm));
  const squareShape = [shape[0], size, size];
  return { values: square, head: headInSquare, shape: squareShape, affine: cutAffine, notes };
}

function axialGrid(volume, pixelMm) {
  const { turn, steps } = orthogonal(volume.affine);
  const [x, y, z] = partners(turn);
  const signs = [turn[2][z], -turn[1][y], -turn[0][x]].map(Math.sign);
  const axes = turn.map((row) => [z, y, x].map((k, place) => row[k] * signs[place]));
  const step = [steps[z], pixelMm, pixelMm];

  // The volume's eight corners, in mm along the new axes.
  const along = [...Array(8).keys()].map((corner) => {
    const index = AXES.map((k) => (corner >> k) % 2 && volume.shape[k] - 1);
    const place = applied(volume.affine, index);
    return AXES.map((k) => dot(columnOf(axes, k), place));
  });
  const low = AXES.map((k) => Math.min(...along.map((place) => place[k])));
  const high = AXES.map((k) => Math.max(...along.map((place) => place[k])));
  const whole = [Math.round, (x) => Math.ceil(x - 1e-6), (x) => Math.ceil(x - 1e-6)];
  const shape = AXES.map((k) => whole[k]((high[k] - low[k]) / step[k]) + 1);

  // The grid's middle is the volume's.
  const first = AXES.map((k) => (low[k] + high[k] - (shape[k] - 1) * step[k]) / 2);
  const affine = axes.map((row) => [...row.map((x, k) => x * step[k]), dot(row, first)]);
  return { affine, shape };
}

// Row and column halfway between the head's first and last.
function middleOf(head, [, rows, columns]) {
  const ends = [Infinity, -1, Infinity, -1];
  head.forEach((isHead, i) => {
    if (!isHead) return;
    const row = Math.floor(i / columns) % rows;
    const column = i % columns;
    ends[0] = Math.min(ends[0], row);
    ends[1] = Math.max(ends[1], row);
    ends[2] = Math.min(ends[2], column);
    ends[3] = Math.max(ends[3], column);
  });
  return [(ends[0] + ends[1]) / 2, (ends[2] + ends[3]) / 2];
}

// A window of every slice from (top, left) on, `fill` where it lies outside of the slice.
function cut(stack, [depth, rows, columns], top, left, height, width, fill) {
  const part = new stack.constructor(depth * height * width).fill(fill);
  for (let z = 0; z < depth; z++) {
    for (let y = Math.max(-top, 0); y < height && y + top < rows; y++) {
      for (let x = Math.max(-left, 0); x < width && x + left < columns; x++) {
        part[(z * height + y) * width + x] = stack[(z * rows + y + top) * columns + x + left];
      }
    }
  }
  return part;
}

// Values on the stack's grid, brought back to the volume's own.
function backOnto(volume, stack, values, background) {
  const grid = { ...stack, values, strides: cStrides(stack.shape) };
  const strides = fileStrides(volume.shape);
  return resample(grid, volume.affine, volume.shape, strides, background).values;
}
