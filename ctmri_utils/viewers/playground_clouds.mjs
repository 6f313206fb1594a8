// Clouds of points in the plane, and how well one is translated into another.
//
// Each cloud is a line of points from its first to its last; the position along that line plays the
// part of the anatomy: points at the same position belong together.

const POINTS = 48;
const NOISE = 0.03; // how far points lie off their line; the plane goes from -1 to 1
const NEAR = 0.12; // a point that has a translated one this near is reached

// From a position (0 to 1) to a place, before the cloud is moved to its side of the plane.
const SHAPES = {
  line: (t) => [0, 1.6 * t - 0.8],
  S: (t) => [0.35 * Math.sin(3 * Math.PI * (t - 0.5)), 1.6 * t - 0.8],
  arc: (t) => [0.3 - 0.6 * Math.sin(Math.PI * t), 0.8 * Math.cos(Math.PI * (1 - t))],
  ring: (t) => [0.4 * Math.cos(2 * Math.PI * t), 0.6 * Math.sin(2 * Math.PI * t)],
  islands: (t) => [0.25 * (Math.floor(4 * t) % 2) - 0.12, 0.5 * Math.floor(4 * t) - 0.75],
};

// Where the clouds of a modality stand, and the seed of their noise.
const SIDES = { ct: { shift: -0.6, seed: 1 }, mri: { shift: 0.4, seed: 2 } };

function shapedCloud(modality, name) {
  const { shift, seed } = SIDES[modality];
  const random = seeded(seed);
  const cloud = new Float64Array(2 * POINTS);
  for (let n = 0; n < POINTS; n++) {
    const [x, y] = SHAPES[name]((n + 0.5) / POINTS);
    cloud[2 * n] = x + shift + NOISE * normal(random);
    cloud[2 * n + 1] = y + NOISE * normal(random);
  }
  return cloud;
}

// A normally distributed number (Box and Muller 1958).
function normal(random) {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

// Points at even distances along a stroke of the pointer, a list of places [x, y].
function drawnCloud(stroke) {
  const lengths = [0];
  for (let k = 1; k < stroke.length; k++) {
    const [x, y] = stroke[k];
    lengths.push(lengths[k - 1] + Math.hypot(x - stroke[k - 1][0], y - stroke[k - 1][1]));
  }

  const cloud = new Float64Array(2 * POINTS);
  let k = 0;
  for (let n = 0; n < POINTS; n++) {
    const length = ((n + 0.5) / POINTS) * lengths.at(-1);
    while (k + 2 < stroke.length && lengths[k + 1] < length) k++;
    const share = (length - lengths[k]) / (lengths[k + 1] - lengths[k] || 1);
    const [x, y] = stroke[k];
    const [nextX, nextY] = stroke[k + 1];
    cloud[2 * n] = x + share * (nextX - x);
    cloud[2 * n + 1] = y + share * (nextY - y);
  }
  return cloud;
}

// Which point of `cloud` is nearest to point n of `points`, and how far away it is.
function nearest(points, n, cloud) {
  let [index, least] = [0, Infinity];
  for (let m = 0; m < POINTS; m++) {
    const right = points[2 * n] - cloud[2 * m];
    const up = points[2 * n + 1] - cloud[2 * m + 1];
    const square = right * right + up * up;
    if (square < least) [index, least] = [m, square];
  }
  return { index, distance: Math.sqrt(least) };
}

// Correlation between a point's position and that of the real point which it is translated to: 1 in
// order, -1 mirrored, 0 if all go to one place.
function order(fake, real) {
  const places = Array.from({ length: POINTS }, (_, n) => nearest(fake, n, real).index);
  const mean = places.reduce((sum, place) => sum + place) / POINTS;
  let [both, ofPlaces, ofPositions] = [0, 0, 0];
  places.forEach((place, n) => {
    const position = n - (POINTS - 1) / 2;
    both += position * (place - mean);
    ofPlaces += (place - mean) ** 2;
    ofPositions += position ** 2;
  });
  return ofPlaces ? both / Math.sqrt(ofPlaces * ofPositions) : 0;
}

// Share of the real points that are reached by a translated one.
function reached(fake, real) {
  const distances = Array.from({ length: POINTS }, (_, m) => nearest(real, m, fake).distance);
  return distances.filter((distance) => distance < NEAR).length / POINTS;
}

// How both directions translate, in numbers and in one word.
function measure(model, ct, mri) {
  const [toMri, toCt] = [[model.G_ct2mri.answer(ct), mri], [model.G_mri2ct.answer(mri), ct]].map(
    ([fake, real]) => ({ fake, order: order(fake, real), reached: reached(fake, real) }),
  );
  return { mri: toMri, ct: toCt, verdict: verdict(toMri, toCt) };
}

function verdict(one, other) {
  const leastReached = Math.min(one.reached, other.reached);
  const leastOrder = Math.min(Math.abs(one.order), Math.abs(other.order));
  if (leastReached < 0.4) return "collapsed";
  if (leastOrder >= 0.9 && one.order * other.order < 0) return "contrary";
  if (leastOrder < 0.9 || leastReached < 0.9) return "mixed";
  return one.order > 0 ? "ordered" : "mirrored";
}
