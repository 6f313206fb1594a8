// Whether it is a scan that the networks can know, as input_checks.py.

// The CT with air where another value was filled in, as `with_air`.
function withAir({ values, shape }, notes) {
  const [low, high] = extremes(values);
  const fill = fillValue(values, shape);
  let region = new Uint8Array(values.length);
  if (fill !== null && fill > low) {
    region = fromTheCorners(Uint8Array.from(values, (x) => x === fill), shape);
  }
  const filledShare = count(region) / values.length;
  const isFilled = filledShare >= PY.LEAST_FILLED;
  const measured = isFilled ? values.filter((_, i) => !region[i]) : values;
  const isClippedBelow = share(measured, (x) => x === low) > PY.MOST_SATURATED;
  if (low > PY.CT_REACHES && (isClippedBelow || !isFilled)) refuse("it shows no air", low, high);

  let result = values;
  if (isFilled) {
    const rim = low <= PY.CT_REACHES ? thickened(region, shape) : region;
    const isAir = (x, i) => region[i] || (rim[i] && x < fill);
    const airShare = count(region.map((_, i) => (isAir(values[i], i) ? 1 : 0))) / values.length;
    result = values.map((x, i) => (isAir(x, i) ? PY.AIR_HU : x));
    notes.push(say("{:.1%} of the voxels are exactly", airShare, fill));
  }
  const dense = Math.max(1, result.filter((x) => x > PY.CT_THRESHOLD_HU).length);
  const saturated = result.filter((x) => x === high).length / dense;
  if (high < PY.DENSE_BONE_HU && saturated > PY.MOST_SATURATED) {
    notes.push(say("{:.1%} of what is denser", saturated, high));
  }
  return result;
}

// The indices of the eight corners of a volume.
function corners([columns, rows, slices]) {
  return [...Array(8).keys()].map(
    (corner) =>
      (corner % 2) * (columns - 1) +
      ((corner >> 1) % 2) * columns * (rows - 1) +
      (corner >> 2) * columns * rows * (slices - 1),
  );
}

// The commonest value at the corners, if it is no air; of equally common ones the lowest.
function fillValue(values, shape) {
  const found = corners(shape).map((i) => values[i]).filter((x) => x > PY.CT_THRESHOLD_HU);
  const howOften = (x) => found.filter((other) => other === x).length;
  found.sort((a, b) => a - b);
  return found.reduce((a, b) => (a !== null && howOften(a) >= howOften(b) ? a : b), null);
}

function fromTheCorners(mask, [columns, rows, slices]) {
  const { labels } = labelled(mask, [slices, rows, columns]);
  const known = new Set(corners([columns, rows, slices]).map((i) => labels[i]));
  return mask.map((x, i) => (x && known.has(labels[i]) ? 1 : 0));
}

// A mask of a volume and its 26 neighbours.
function thickened(mask, [columns, rows, slices]) {
  const flat = headAndRim(mask, [slices, rows, columns]);
  const area = rows * columns;
  return flat.map((x, i) => x | flat[i - area] | flat[i + area]);
}

// Sentences on a head that cannot be one.
function headNotes(head, [depth, rows, columns], [sliceMm, rowMm, columnMm], notes) {
  const areas = sliceAreas(head, depth);
  const litres = (count(head) * sliceMm * rowMm * columnMm) / 1e6;
  const largest = (Math.max(...areas) * rowMm * columnMm) / 100;
  let border = 0;
  head.forEach((isHead, i) => {
    if (!isHead) return;
    const column = i % columns;
    const row = Math.floor(i / columns) % rows;
    border += (row === 0) + (row === rows - 1) + (column === 0) + (column === columns - 1);
  });
  const borderShare = border / (areas.filter(Boolean).length * 2 * (rows + columns));
  if (litres > PY.LARGEST_HEAD_LITRES) {
    notes.push(say("the head that was found has {:.1f} L", litres));
  }
  if (largest < PY.SMALLEST_SLICE_CM2) {
    notes.push(say("the head that was found has {:.0f} cm2", largest));
  }
  if (borderShare > PY.MOST_BORDER) notes.push(say("{:.0%} of the border", borderShare));
}

function sliceAreas(head, depth) {
  const area = head.length / depth;
  return Array.from({ length: depth }, (_, z) => count(head.subarray(z * area, (z + 1) * area)));
}

// Refuses a scan that the networks cannot know; returns what they have not seen, in sentences.
function checkInput(volume, stack) {
  const look = lookAt(volume, stack);
  checkOrientation(look);
  checkModality(look, volume.modality);
  return oddities(look, volume.modality);
}

function checkOrientation({ widthToLength, cut, lowest, highest }) {
  const [low, high] = PY.WIDTH_TO_LENGTH;
  if (cut <= PY.MOST_CUT && !(low <= widthToLength && widthToLength <= high)) {
    refuse("its head is {:.2f} times", widthToLength);
  }
  if (lowest < PY.VERTEX && highest > lowest + PY.MORE_THAN_VERTEX) {
    refuse("its head narrows downwards");
  }
}

function checkModality({ middle, spread }, modality) {
  if (modality === "mri" && spread < PY.LEAST_SPREAD * Math.abs(middle)) {
    refuse("its brain is almost uniform", spread, middle);
  }
  const [low, high] = PY.BRAIN_HU;
  const isInHU = low <= middle && middle <= high && spread <= PY.MOST_SPREAD_HU;
  if (modality === "ct" && !isInHU) refuse("its brain lies at", middle, spread);
}

function oddities(look, modality) {
  const found = [];
  if (modality === "mri" && look.skull > PY.DARK_SKULL) found.push(say("no skull: no dark skull"));
  if (modality === "ct" && look.skull < PY.LEAST_BONE) {
    found.push(say("no skull: {:.1%}", look.skull));
  }
  if (modality === "mri" && look.lean > PY.T1_LEAN) found.push(say("contrast:"));
  if (look.cut > PY.MOST_CUT) found.push(say("cut off:", look.cut));
  const [smallest, largest] = PY.LARGEST_SLICE_CM2;
  if (!(smallest <= look.largestCm2 && look.largestCm2 <= largest)) {
    found.push(say("size:", look.largestCm2, smallest, largest));
  }
  return found;
}

// What is measured in a scan, see `HeadMeasures` of input_checks.py.
function lookAt(volume, stack) {
  const [depth, rows, columns] = stack.shape;
  const [, rowMm, columnMm] = sidesOf(stack.affine);
  const areas = sliceAreas(stack.head, depth).map((pixels) => (pixels * rowMm * columnMm) / 100);
  const largestCm2 = Math.max(...areas);
  const withHead = areas.filter(Boolean);
  const large = [...areas.keys()].filter((z) => areas[z] >= PY.LARGE_SLICE * largestCm2);

  const depths = new Map();
  for (const z of large) {
    const head = sliceOf(stack.head, z, rows * columns);
    depths.set(z, depthsMm(head, rows, columns, rowMm, columnMm));
  }
  const deepest = Math.max(...[...depths.values()].map((one) => extremes(one)[1]));
  const layer = (low, high) => pick(stack, depths, (mm) => mm > low && mm <= high);
  const deep = layer(PY.DEEP * deepest, Infinity);
  const [dark, lower, middle, upper, bright] = percentiles(deep, [5, 25, 50, 75, 95]);

  return {
    widthToLength: (widthToLength(stack, large) * columnMm) / rowMm,
    lowest: withHead[0] / largestCm2,
    highest: withHead.at(-1) / largestCm2,
    largestCm2,
    cut: cutShare(volume, stack, rowMm),
    middle,
    spread: upper - lower,
    lean: (bright - 2 * middle + dark) / Math.max(bright - dark, 1e-9),
    skull: skullOf(layer, volume.modality),
  };
}

const sliceOf = (array, z, area) => array.subarray(z * area, (z + 1) * area);

// The values of the large slices at depths that a test is true of.
function pick({ values, shape }, depths, test) {
  const found = [];
  for (const [z, depthMm] of depths) {
    const first = z * shape[1] * shape[2];
    depthMm.forEach((mm, i) => {
      if (test(mm)) found.push(values[first + i]);
    });
  }
  return found;
}

// How far each pixel of a slice's head lies from what is no head, exactly.
function depthsMm(head, rows, columns, rowMm, columnMm) {
  if (head.every(Boolean)) {
    // Nothing is outside: SciPy measures from the pixel above the first one.
    const fromThere = (_, i) => {
      const row = Math.floor(i / columns);
      return Math.hypot((row + 1) * rowMm, (i % columns) * columnMm);
    };
    return Float64Array.from(head, fromThere);
  }

  // Along each column first: the distance to the next pixel outside.
  const along = new Float64Array(head.length).fill(Infinity);
  for (let x = 0; x < columns; x++) {
    for (const [first, step] of [[0, 1], [rows - 1, -1]]) {
      let distance = Infinity;
      for (let y = first; y >= 0 && y < rows; y += step) {
        const i = y * columns + x;
        distance = head[i] ? distance + rowMm : 0;
        along[i] = Math.min(along[i], distance);
      }
    }
  }
  const depth = (isHead, i) => (isHead ? nearest(along, i, columns, columnMm) : 0);
  return Float64Array.from(head, depth);
}

function nearest(along, i, columns, columnMm) {
  const row = i - (i % columns);
  let best = along[i] ** 2;
  for (let step = 1; step < columns && (step * columnMm) ** 2 < best; step++) {
    for (const x of [(i % columns) - step, (i % columns) + step]) {
      if (x < 0 || x >= columns) continue;
      best = Math.min(best, along[row + x] ** 2 + (step * columnMm) ** 2);
    }
  }
  return Math.sqrt(best);
}

// Columns over rows that the head covers, median over slices.
function widthToLength({ head, shape: [, rows, columns] }, slices) {
  const ratios = slices.map((z) => {
    const mask = sliceOf(head, z, rows * columns);
    const used = { rows: new Set(), columns: new Set() };
    mask.forEach((isHead, i) => {
      if (!isHead) return;
      used.rows.add(Math.floor(i / columns));
      used.columns.add(i % columns);
    });
    const [height, width] = [used.rows, used.columns].map((lines) => {
      const [low, high] = extremes(lines);
      return high - low + 1;
    });
    return width / height;
  });
  return median(ratios);
}

// Darkest of the skull over brightest of the scalp, in MR; share of bone in the rim, in CT.
function skullOf(layer, modality) {
  if (modality === "ct") return share(layer(0, PY.RIM_MM), (hu) => hu > PY.BONE_HU);

  const medians = (ends) =>
    ends
      .slice(1)
      .map((end, k) => layer(ends[k], end))
      .filter((values) => values.length)
      .map(median);
  const scalp = Math.max(...medians(PY.SCALP_MM));
  const skull = medians(PY.SKULL_MM);
  return (skull.length ? Math.min(...skull) : scalp) / Math.max(scalp, 1e-9);
}

// Share of the head's slices that touch the border of the volume.
function cutShare(volume, { head, shape, affine }, rowMm) {
  const [depth, rows, columns] = shape;
  const toIndex = product(inverse(volume.affine), affine);
  const isBeyond = (x, k) => x < -PY.ROUNDING || x > volume.shape[k] - 1 + PY.ROUNDING;
  const touching = new Float64Array(depth);
  const steps = [1, 2].flatMap((axis) =>
    [1, -1].map((sign) => toIndex.map((row) => sign * row[axis])),
  );
  head.forEach((isHead, i) => {
    if (!isHead) return;
    const z = Math.floor(i / (rows * columns));
    const index = applied(toIndex, [z, Math.floor(i / columns) % rows, i % columns]);
    if (steps.some((step) => index.some((x, k) => isBeyond(x + step[k], k)))) touching[z] += rowMm;
  });
  const withHead = sliceAreas(head, depth);
  const used = [...touching].filter((_, z) => withHead[z]);
  return share(used, (mm) => mm > PY.CUT_MM);
}
