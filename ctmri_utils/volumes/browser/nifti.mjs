// NIfTI-1 and 2 in, NIfTI-1 out. https://nifti.nimh.nih.gov: nifti1.h and nifti2.h.

// Where a header of so many bytes holds what: type, first byte, how many.
const LAYOUTS = {
  348: {
    dim: ["Int16", 40, 8],
    datatype: ["Int16", 70, 1],
    pixdim: ["Float32", 76, 8],
    offset: ["Float32", 108, 1],
    scale: ["Float32", 112, 2],
    unit: ["Int8", 123, 1],
    codes: ["Int16", 252, 2],
    quaternion: ["Float32", 256, 6],
    srow: ["Float32", 280, 12],
    magic: ["Uint8", 344, 3],
  },
  540: {
    magic: ["Uint8", 4, 3],
    datatype: ["Int16", 12, 1],
    dim: ["BigInt64", 16, 8],
    pixdim: ["Float64", 104, 8],
    offset: ["BigInt64", 168, 1],
    scale: ["Float64", 176, 2],
    codes: ["Int32", 344, 2],
    quaternion: ["Float64", 352, 6],
    srow: ["Float64", 400, 12],
    unit: ["Int32", 500, 1],
  },
};
const TYPES = { 2: "Uint8", 4: "Int16", 8: "Int32", 16: "Float32", 64: "Float64", 256: "Int8" };
Object.assign(TYPES, { 512: "Uint16", 768: "Uint32", 1024: "BigInt64", 1280: "BigUint64" });

const bytesOf = (type) => parseInt(type.match(/\d+/)[0]) / 8;

// Numbers of one type in a file, scaled.
function numbersAt(view, [type, first, count], little, numbers, slope = 1, intercept = 0) {
  const read = view[`get${type}`].bind(view);
  const size = bytesOf(type);
  for (let k = 0; k < count; k++) {
    numbers[k] = Number(read(first + k * size, little)) * slope + intercept;
  }
  return numbers;
}

// Everything that a header says, or nothing where it is none.
function readHeader(view) {
  if (view.byteLength < 540) return null;
  const little = view.getInt32(0, true) in LAYOUTS;
  const size = view.getInt32(0, little);
  if (!(size in LAYOUTS)) return null;
  const header = { size, little };
  for (const [name, place] of Object.entries(LAYOUTS[size])) {
    header[name] = numbersAt(view, place, little, []);
  }
  return String.fromCharCode(...header.magic).startsWith("n+") ? header : null;
}

// A new header and 16-bit voxels; comments become extensions. No byte of the source comes along.
function writeNifti({ values, shape, affine, sides, codes, quaternion, qfac, label, comments }) {
  const texts = comments.map((comment) => new TextEncoder().encode(comment));
  const lengths = texts.map((text) => 16 * Math.ceil((text.length + 8) / 16));
  const start = lengths.reduce((sum, length) => sum + length, 352);
  const bytes = new Uint8Array(start + 2 * values.length);
  const view = new DataView(bytes.buffer);
  const put = (type, first, numbers) =>
    numbers.forEach((x, k) => view[`set${type}`](first + k * bytesOf(type), x, true));

  put("Int32", 0, [348]);
  put("Int16", 40, [3, ...shape, 1, 1, 1, 1]);
  put("Int16", 70, [4, 16]);
  put("Float32", 76, [qfac, ...sides]);
  put("Float32", 108, [start, 1, 0]);
  put("Uint8", 123, [2]);
  bytes.set(new TextEncoder().encode(label).slice(0, 79), 148);
  put("Int16", 252, codes);
  put("Float32", 256, quaternion);
  put("Float32", 280, affine.flat());
  bytes.set(new TextEncoder().encode("n+1"), 344);

  let next = 352;
  bytes[348] = texts.length ? 1 : 0;
  texts.forEach((text, k) => {
    put("Int32", next, [lengths[k], 6]);
    bytes.set(text, next + 8);
    next += lengths[k];
  });
  put("Int16", start, values);
  return bytes;
}
