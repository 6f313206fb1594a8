// Where the head is, as masks.py finds it. A mask is a Uint8Array of 0 and 1, slice by slice.

const count = (mask) => mask.reduce((sum, x) => sum + x, 0);

// The head in a volume, as one connected piece.
function volumeHeadMask({ values, shape }, modality) {
  const [depth, rows, columns] = shape;
  const area = rows * columns;
  const threshold = modality === "ct" ? PY.CT_THRESHOLD_HU : mriThreshold(values);
  const foreground = Uint8Array.from(values, (x) => x > threshold);
  const slice = (mask, z) => mask.subarray(z * area, (z + 1) * area);
  const filled = new Uint8Array(values.length);
  for (let z = 0; z < depth; z++) {
    filled.set(filledHoles(slice(foreground, z), rows, columns), z * area);
  }

  // A hollow table may be larger than the head, but holds less.
  const piece = largestPart(filled, shape, foreground);

  // From the largest slice on, up and down, each slice keeps the part that continues the last one.
  const head = new Uint8Array(values.length);
  const areas = Array.from({ length: depth }, (_, z) => count(slice(piece, z)));
  const middle = areas.indexOf(Math.max(...areas));
  const plane = [1, rows, columns];
  head.set(largestPart(slice(piece, middle), plane, slice(foreground, middle)), middle * area);
  const follow = (z, from) => {
    const before = slice(head, from);
    const shared = slice(foreground, z).map((x, i) => x & before[i]);
    head.set(continuingPart(slice(piece, z), plane, shared), z * area);
  };
  for (let z = middle + 1; z < depth; z++) follow(z, z - 1);
  for (let z = middle - 1; z >= 0; z--) follow(z, z + 1);
  return head;
}

// Otsu's threshold between background and head, after bright spots are cut off.
function mriThreshold(values) {
  const otsu = otsuThreshold(values);
  const firstShare = share(values, (x) => x > otsu);
  let threshold = otsu;
  let shareAbove = firstShare;
  let below = values.filter((x) => x <= otsu);
  while (shareAbove < PY.SMALL_SHARE) {
    const [low, high] = extremes(below);
    if (!(low < high)) break;
    const lower = otsuThreshold(below);
    const [highest] = percentiles(below, [99.5]);
    const cropped = below.map((x) => Math.min(x, highest));
    if (lower < highest && separation(cropped, lower) < PY.LEAST_SEPARATION) break;
    threshold = lower;
    shareAbove = share(values, (x) => x > lower);
    below = below.filter((x) => x <= lower);
  }
  return shareAbove > PY.LARGE_RATIO * firstShare ? threshold : otsu;
}

// The share of the variance that lies between the two classes, Otsu's measure.
function separation(values, threshold) {
  const sums = [0, 0];
  const counts = [0, 0];
  let squares = 0;
  for (const x of values) {
    const side = x > threshold ? 1 : 0;
    sums[side] += x;
    counts[side]++;
    squares += x * x;
  }
  if (!counts[0] || !counts[1]) return 0;
  const weight = counts[1] / values.length;
  const distance = sums[1] / counts[1] - sums[0] / counts[0];
  const variance = squares / values.length - ((sums[0] + sums[1]) / values.length) ** 2;
  return (weight * (1 - weight) * distance ** 2) / variance;
}

// One-pixel gaps of a slice closed, and its holes filled.
function filledHoles(foreground, rows, columns) {
  const margin = 2;
  const [height, width] = [rows + 2 * margin, columns + 2 * margin];
  let padded = new Uint8Array(height * width);
  for (let y = 0; y < rows; y++) {
    const row = foreground.subarray(y * columns, (y + 1) * columns);
    padded.set(row, (y + margin) * width + margin);
  }
  padded = inverted(dilated(inverted(dilated(padded, height, width)), height, width));

  // What cannot be reached from outside is filled.
  const closed = cut(padded, [1, height, width], margin, margin, rows, columns, 0);
  const outside = flooded(closed, rows, columns);
  return closed.map((_, i) => (outside[i] ? 0 : 1));
}

const inverted = (mask) => mask.map((x) => 1 - x);

// A mask and its eight neighbours, in a slice.
function dilated(mask, rows, columns) {
  const result = mask.slice();
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      if (!mask[y * columns + x]) continue;
      for (let v = Math.max(y - 1, 0); v < Math.min(y + 2, rows); v++) {
        result.fill(1, v * columns + Math.max(x - 1, 0), v * columns + Math.min(x + 2, columns));
      }
    }
  }
  return result;
}

// Background of a slice that hangs together with its border.
function flooded(mask, rows, columns) {
  const outside = new Uint8Array(mask.length);
  const parts = labelled(inverted(mask), [1, rows, columns]);
  const touching = new Set([0]);
  for (let y = 0; y < rows; y++) {
    const step = y === 0 || y === rows - 1 ? 1 : Math.max(columns - 1, 1);
    for (let x = 0; x < columns; x += step) touching.add(parts.labels[y * columns + x]);
  }
  touching.delete(0);
  parts.labels.forEach((label, i) => {
    if (touching.has(label)) outside[i] = 1;
  });
  return outside;
}

// Connected parts, numbered from 1, of neighbours along an axis.
function labelled(mask, [depth, rows, columns]) {
  const labels = new Int32Array(mask.length);
  const waiting = new Int32Array(mask.length);
  const area = rows * columns;
  let parts = 0;
  for (let start = 0; start < mask.length; start++) {
    if (!mask[start] || labels[start]) continue;
    labels[start] = ++parts;
    let length = 0;
    waiting[length++] = start;
    const visit = (i) => {
      if (!mask[i] || labels[i]) return;
      labels[i] = parts;
      waiting[length++] = i;
    };
    while (length) {
      const i = waiting[--length];
      const x = i % columns;
      const y = ((i - x) / columns) % rows;
      const z = Math.floor(i / area);
      if (x > 0) visit(i - 1);
      if (x < columns - 1) visit(i + 1);
      if (y > 0) visit(i - columns);
      if (y < rows - 1) visit(i + columns);
      if (z > 0) visit(i - area);
      if (z < depth - 1) visit(i + area);
    }
  }
  return { labels, parts };
}

// How much of a weight each part holds, from 0 for the background on.
function weights({ labels, parts }, weight) {
  const sums = new Float64Array(parts + 1);
  labels.forEach((label, i) => (sums[label] += weight[i]));
  sums[0] = 0;
  return sums;
}

// The part that holds most of a weight; all if it is one.
function largestPart(mask, shape, weight) {
  const found = labelled(mask, shape);
  if (found.parts <= 1) return mask;
  const sums = weights(found, weight);
  const best = Math.max(sums.indexOf(Math.max(...sums)), 1);
  return mask.map((_, i) => (found.labels[i] === best ? 1 : 0));
}

// The part that shares most with another mask; nothing if none does.
function continuingPart(mask, shape, shared) {
  const found = labelled(mask, shape);
  const sums = weights(found, shared);
  const best = sums.indexOf(Math.max(...sums));
  return mask.map((_, i) => (sums[best] && found.labels[i] === best ? 1 : 0));
}

// The head and one pixel around it in every slice.
function headAndRim(head, [depth, rows, columns]) {
  const area = rows * columns;
  const result = new Uint8Array(head.length);
  for (let z = 0; z < depth; z++) {
    result.set(dilated(head.subarray(z * area, (z + 1) * area), rows, columns), z * area);
  }
  return result;
}
