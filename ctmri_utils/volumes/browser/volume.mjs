// A NIfTI file as a volume, with the checks of nifti.py and volume.py.

const MODALITIES = { ct: "CT", mri: "MR" };
const UNITS = { 1: "meters", 3: "microns" };
const COLOURS_AND_COMPLEX = [32, 128, 1792, 2048, 2304];

// The start of a file, packed or not, read as far as it is needed.
class Source {
  static async of(file) {
    const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
    const isPacked = start[0] === 0x1f && start[1] === 0x8b;
    const stream = file.stream();
    const unpacked = isPacked ? stream.pipeThrough(new DecompressionStream("gzip")) : stream;
    return new Source(file.name, unpacked);
  }

  constructor(name, stream) {
    this.name = name;
    this.reader = stream.getReader();
    this.parts = [];
    this.length = 0;
  }

  // So many bytes, or as many as there are.
  async upTo(length) {
    try {
      while (this.length < length) {
        const { done, value } = await this.reader.read();
        if (done) break;
        this.parts.push(value);
        this.length += value.length;
      }
    } catch (error) {
      refuse("{} is damaged or not", this.name, error.name);
    }
    const bytes = new Uint8Array(await new Blob(this.parts).arrayBuffer());
    return new DataView(bytes.buffer, 0, Math.min(length, bytes.length));
  }
}

// Reads one volume: values as float32 (i fastest), affine, modality, notes.
async function readVolume(file, modality) {
  const source = await Source.of(file);
  const start = await source.upTo(PY.START_BYTES);
  const header = readHeader(start) ?? refuseOther(start);
  const [dimensions] = header.dim;
  if (!(dimensions >= 1 && dimensions <= 7)) refuse("its header does not give");
  const notes = mendHeader(header, start);
  if (isSynthetic(start)) {
    const advice = say("give real scans");
    refuse("{} holds no scan", file.name, ".nii, .nii.gz", `; 1 ${PY.TRANSLATED}`, advice);
  }

  const shape = threeDimensions(header.dim.slice(1, dimensions + 1));
  checkShape(shape);
  if (COLOURS_AND_COMPLEX.includes(header.datatype[0])) refuse("its voxels are colours");
  const type = TYPES[header.datatype[0]];
  if (!type) refuse("{} is damaged or not", file.name, "HeaderDataError");
  const unit = UNITS[header.unit[0] & 7];
  if (unit) refuse("its lengths are in", unit.slice(0, -1));

  const count = shape.reduce((a, b) => a * b);
  const [offset] = header.offset;
  if (!(offset >= 0 && offset <= PY.MOST_HEADER_BYTES)) refuse("its header is longer");
  const length = Math.trunc(offset) + count * bytesOf(type);
  const bytes = await source.upTo(length);
  if (bytes.byteLength < length) refuse("it ends after", bytes.byteLength, length);

  const values = scaledVoxels(header, bytes, [type, Math.trunc(offset), count]);
  const place = placeInSpace(header, shape, notes);
  checkNoLabels(values, shape);
  const known = cleaned(values, modality, notes);
  if (!place.space) notes.push(say("the file gives no orientation"));
  if (!isPlausible(place.affine)) refuse("the position of its voxels");
  return { values, shape, ...place, modality: known, notes };
}

function refuseOther(start) {
  const text = String.fromCharCode(...new Uint8Array(start.buffer).slice(0, 30));
  for (const [beginning, sentence] of Object.entries(PY.NOT_FETCHED)) {
    if (text.startsWith(beginning)) throw new Refusal(sentence);
  }
  refuse("it does not begin like");
}

function isSynthetic(start) {
  const text = new TextDecoder("latin1").decode(start);
  return new RegExp(PY.OWN_LABEL).test(text);
}

// Puts right in place what can only have been meant one way; returns notes.
function mendHeader(header, start) {
  const notes = [];
  const { size, scale, quaternion } = header;
  if (header.offset[0] >= 0 && header.offset[0] < size + 4) {
    if (start.byteLength > size && start.getUint8(size)) {
      refuse("its vox_offset lies inside its header, and");
    }
    header.offset[0] = size + 4;
    notes.push(say("its vox_offset lies inside its header; its", size + 4));
  }
  if (!Number.isFinite(scale[1]) && scale[0]) refuse("its scl_inter");

  const squared = dot(quaternion, quaternion);
  if (squared > 1 && squared <= PY.LONGEST_QUATERNION) {
    for (const k of AXES) quaternion[k] *= (1 - 1e-7) / Math.sqrt(squared);
  }
  const [qform, sform] = header.codes;
  const needsQform = qform > 0 && !(sform > 0 && isPlausible(sformOf(header)));
  if (needsQform && squared > PY.LONGEST_QUATERNION) refuse("its qform is not a rotation");
  return notes;
}

function threeDimensions(shape) {
  while (shape.length > 3 && shape.at(-1) === 1) shape.pop();
  return [...shape, 1, 1].slice(0, Math.max(shape.length, 3));
}

function checkShape(shape) {
  const sides = shape.join(" x ");
  if (shape.length !== 3) refuse("it has {} dimensions", shape.length, sides);
  const count = shape.reduce((a, b) => a * b);
  if (Math.min(...shape) < 1 || count > PY.MOST_VOXELS) {
    refuse("it claims", sides, PY.MOST_VOXELS);
  }
}

function scaledVoxels({ scale: [slope, intercept], little }, bytes, place) {
  const scale = slope !== 0 && Number.isFinite(slope) ? [slope, intercept] : [];
  return numbersAt(bytes, place, little, new Float32Array(place[2]), ...scale);
}

// Affine and code of the space, and what of the header a translation keeps.
function placeInSpace(header, shape, notes) {
  const [qform, sform] = header.codes;
  const rows = sformOf(header);
  const turned = quaternionAffine(header);
  const usesSform = sform > 0 && (isPlausible(rows) || qform <= 0 || !isPlausible(turned));
  if (sform > 0 && !usesSform) notes.push(say("its sform is not plausible"));

  let affine = turned;
  if (usesSform) affine = rows;
  else if (qform <= 0) affine = baseAffine(header.pixdim, shape);
  const space = (usesSform ? sform : 0) || Math.max(qform, 0);
  const isSame = qform > 0 && affine.flat().every((x, k) => Math.abs(x - turned.flat()[k]) < 1e-3);
  return { affine, space, header, hasQform: isSame };
}

const sformOf = ({ srow }) => AXES.map((k) => srow.slice(4 * k, 4 * k + 4));

// No numbers where the quaternion is longer than that of a rotation.
function quaternionAffine({ quaternion: [b, c, d, ...shift], pixdim }) {
  const a = Math.sqrt(1 - b * b - c * c - d * d);
  const turn = [
    [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
    [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
    [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
  ];
  const sides = [pixdim[1], pixdim[2], pixdim[3] * (pixdim[0] === -1 ? -1 : 1)];
  return turn.map((row, k) => [...row.map((x, column) => x * sides[column]), shift[k]]);
}

function baseAffine(pixdim, shape) {
  const sides = [-pixdim[1], pixdim[2], pixdim[3]];
  return AXES.map((row) => {
    const numbers = AXES.map((column) => (row === column ? sides[row] : 0));
    return [...numbers, (-sides[row] * (shape[row] - 1)) / 2];
  });
}

function isPlausible(affine) {
  if (!affine.flat().every(Number.isFinite)) return false;
  const sides = sidesOf(affine);
  if (!sides.every((side) => side > 0.01 && side < 100)) return false;
  const isSolid = Math.abs(determinant(affine)) > 0.1 * sides[0] * sides[1] * sides[2];
  return isSolid && affine.flat().every((x) => Math.abs(x) < 1e5);
}

// As `looks_like_labels` of discovery.py.
function checkNoLabels(values, [rows]) {
  const finite = (x) => (Number.isFinite(x) ? x : 0);
  const stride = Math.max(1, Math.floor(values.length / 50_000));
  const sample = new Set();
  for (let k = 0; k < values.length; k += stride) sample.add(finite(values[k]));
  if (sample.size > PY.MOST_LABELS) return;

  const counts = new Map();
  for (const x of values) counts.set(finite(x), (counts.get(finite(x)) ?? 0) + 1);
  const found = [...counts.keys()];
  if (found.some((x) => x < -1)) return;
  if (found.length <= 3) refuse("it holds a few whole numbers");
  if (found.length > PY.MOST_LABELS || !found.every(Number.isInteger)) return;
  if (found.length <= PY.FEW_VALUES) refuse("it holds a few whole numbers");

  const background = found.reduce((a, b) => (counts.get(b) > counts.get(a) ? b : a));
  let inside = 0;
  let same = 0;
  for (let k = 1; k < values.length; k++) {
    if (k % rows === 0 || values[k - 1] === background || values[k] === background) continue;
    inside++;
    if (values[k - 1] === values[k]) same++;
  }
  if (inside && same / inside > PY.SAME_NEIGHBOUR) refuse("it holds a few whole numbers");
}

// Replaces what was not measured, and recognises the modality; as `cleaned` of volume.py.
function cleaned(values, modality, notes) {
  const isBroken = (x) => !(Math.abs(x) < PY.IMPOSSIBLE_VALUE);
  const measured = values.some(isBroken) ? values.filter((x) => !isBroken(x)) : values;
  const broken = values.length - measured.length;
  if (!measured.length) refuse("it holds no finite number");
  const [low, high] = extremes(measured);
  const known = recognised(modality, low, high, broken > 0, notes);
  const isCT = known === "ct";
  if (isCT) checkHU(measured, low, high);

  const smallest = isCT ? PY.LOWEST_HU : Math.min(low, 0);
  if (isCT && low < PY.LOWEST_HU) {
    const below = measured.filter((x) => x < PY.LOWEST_HU).length / values.length;
    notes.push(say("{:.1%} of the voxels are below", below, PY.LOWEST_HU));
  }
  for (let k = 0; k < values.length; k++) {
    if (isBroken(values[k]) || (isCT && values[k] < PY.LOWEST_HU)) values[k] = smallest;
  }
  if (broken) {
    const inMR = low <= 0 ? "the smallest value" : "0";
    const replacement = isCT ? "-1024 HU, as not measured" : inMR;
    notes.push(say("{} voxels are not finite numbers", broken, replacement));
  }
  return known;
}

function recognised(modality, low, high, hasHoles, notes) {
  const looksLikeCT = low <= PY.CT_REACHES;
  const mayBeCT = low <= PY.FAT_HU && low < -PY.RINGING * high;
  if (modality === "mri" && looksLikeCT) refuse("its values reach down", low);
  if (modality) return modality;

  if (mayBeCT && !looksLikeCT && !hasHoles) refuse("its values are", low, high);
  const known = looksLikeCT || mayBeCT ? "ct" : "mri";
  notes.push(say("the file does not say what it is", MODALITIES[known], low, high));
  return known;
}

// As `check_hu` of evaluation/checked_inputs.py, of everything that was measured.
function checkHU(measured, low, high) {
  const isNormalised = low >= -2 && low < high && high <= 4;
  if (isNormalised) refuse("the {} spans {:.4g} to {:.4g}, which", "CT", low, high);
  if (!(PY.AIR_BELOW_HU < low && low < high)) return;
  const isBright = low >= 0 && high > 0;
  if (isBright || median(measured) > PY.DENSE_HEAD_HU) {
    refuse("the {} spans {:.4g} to {:.4g} and shows", "CT", low, high);
  }
}
