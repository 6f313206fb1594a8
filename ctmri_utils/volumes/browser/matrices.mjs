// Affines as three rows of four numbers, and the little algebra that grids need.

const AXES = [0, 1, 2];
const ORDERS = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const columnOf = (affine, k) => affine.map((row) => row[k]);
const sidesOf = (affine) => AXES.map((k) => Math.hypot(...columnOf(affine, k)));
const applied = (affine, point) => affine.map((row) => dot(row, point) + row[3]);

function determinant([[a, b, c], [d, e, f], [g, h, i]]) {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

function inverse(affine) {
  const [[a, b, c], [d, e, f], [g, h, i]] = affine;
  const scale = 1 / determinant(affine);
  const turn = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ].map((row) => row.map((x) => x * scale));
  const shift = columnOf(affine, 3);
  return turn.map((row) => [...row, -dot(row, shift)]);
}

function product(first, second) {
  return first.map((row) =>
    [0, 1, 2, 3].map((k) => dot(row, columnOf(second, k)) + (k === 3 ? row[3] : 0)),
  );
}

// Which column belongs to each row, so that the sum of the entries' sizes is largest.
function partners(matrix) {
  const size = (order) => AXES.reduce((sum, row) => sum + Math.abs(matrix[row][order[row]]), 0);
  return ORDERS.reduce((best, order) => (size(order) > size(best) ? order : best));
}

// Orthogonal axes as columns, the first two in their plane, and the steps along them.
function orthogonal(affine) {
  const axes = [];
  const steps = [];
  for (const k of AXES) {
    let axis = columnOf(affine, k);
    for (const other of axes) {
      const along = dot(axis, other);
      axis = axis.map((x, row) => x - along * other[row]);
    }
    const length = Math.hypot(...axis);
    axes.push(axis.map((x) => x / length));
    steps.push(length);
  }
  return { turn: AXES.map((row) => axes.map((axis) => axis[row])), steps };
}
