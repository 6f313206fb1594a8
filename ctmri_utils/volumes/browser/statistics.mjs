// Percentiles, extremes and Otsu's threshold, with NumPy's and skimage's own roundings.

const BINS = 256;

// The linear percentiles of numbers, as numpy.percentile.
function percentiles(values, percents) {
  const sorted = Float32Array.from(values).sort();
  return percents.map((percent) => {
    const place = ((sorted.length - 1) * percent) / 100;
    const below = Math.floor(place);
    const above = Math.min(below + 1, sorted.length - 1);
    return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
  });
}

const median = (values) => percentiles(values, [50])[0];

// The smallest and the largest number.
function extremes(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const x of values) {
    if (x < low) low = x;
    if (x > high) high = x;
  }
  return [low, high];
}

// Share of the values that a test is true of.
function share(values, test) {
  let count = 0;
  for (const x of values) if (test(x)) count++;
  return count / values.length;
}

// skimage's threshold_otsu of float32 numbers: 32-bit edges, counts and sums.
function otsuThreshold(values) {
  const { fround } = Math;
  const [low, high] = extremes(values);
  const step = fround(fround(high - low) / BINS);
  const edges = Float32Array.from({ length: BINS + 1 }, (_, k) => fround(k * step) + low);
  edges[BINS] = high;
  const counts = new Float32Array(BINS);
  for (const x of values) {
    let bin = Math.min(Math.floor(((x - low) / (high - low)) * BINS), BINS - 1);
    if (x < edges[bin]) bin--;
    else if (bin < BINS - 1 && x >= edges[bin + 1]) bin++;
    counts[bin]++;
  }

  const centers = counts.map((_, k) => fround(edges[k] + edges[k + 1]) / 2);
  const moments = counts.map((count, k) => count * centers[k]);
  const [weightBelow, momentBelow] = [counts, moments].map(runningSum);
  const [weightAbove, momentAbove] = [counts, moments].map((x) =>
    runningSum(x.slice().reverse()).reverse(),
  );
  let best = 0;
  let largest = -1;
  for (let k = 0; k < BINS - 1; k++) {
    const below = fround(momentBelow[k] / weightBelow[k]);
    const above = fround(momentAbove[k + 1] / weightAbove[k + 1]);
    const distance = fround(below - above);
    const weight = fround(weightBelow[k] * weightAbove[k + 1]);
    const variance = fround(weight * fround(distance * distance));
    if (variance > largest) [best, largest] = [k, variance];
  }
  return centers[best];
}

function runningSum(numbers) {
  const sums = new Float32Array(numbers.length);
  let sum = 0;
  for (let k = 0; k < numbers.length; k++) sums[k] = sum = Math.fround(sum + numbers[k]);
  return sums;
}
