// Numbers and colours of a viewer, and its packed values.

const RED = [255, 0, 0];
const BLUE = [0, 0, 255];
const ORANGE = [230, 159, 0];

// A pixel of the canvas is 0xAABBGGRR.
const BLACK = 0xff000000;
const BETWEEN_PANES = 0xff808080;

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function round(value) {
  return Math.floor(value + 0.5);
}

function short(value) {
  return String(Math.abs(value) < 100 ? +value.toPrecision(3) : Math.round(value));
}

function grey(level) {
  return BLACK | (level * 0x010101);
}

// A grey level under a share of a colour.
function tint(level, [red, green, blue], part) {
  const share = clamp(part, 0, 1);
  const mix = (component) => round(level * (1 - share) + component * share);
  return BLACK | (mix(blue) << 16) | (mix(green) << 8) | mix(red);
}

// The name of the window that level and width make, "" if it has none.
function windowName(windows, { level, width }) {
  const names = Object.keys(windows);
  return names.find((name) => windows[name].join() === [level, width].join()) ?? "";
}

// Where values lie between the lowest and the highest, from 5 to 95 %.
function percentages(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  return values.map((value) => 5 + 90 * (high > low ? (value - low) / (high - low) : 0.5));
}

// Unpacks what packing.py has packed: the comments there say how. Values may come unpacked too.
async function unpack(packed, columns, groups) {
  if (packed instanceof Int16Array) return packed;
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const stored = await new Response(stream).arrayBuffer();
  const next = new Uint32Array(stored, 0, groups);
  const bytes = new Uint8Array(stored, 4 * groups);
  const total = bytes.length / 2;
  const values = new Int16Array(total);

  for (let i = 0; i < total; i++) {
    // Before the first value there are zeros: undefined | 0.
    const left = values[i - 1] | 0;
    const above = values[i - columns] | 0;
    const corner = values[i - columns - 1] | 0;

    const activity = Math.abs(left - corner) + Math.abs(above - corner);
    const bits = 32 - Math.clz32(activity);
    const place = next[bits]++;
    const code = bytes[place] | (bytes[total + place] << 8);
    const residual = (code >>> 1) ^ -(code & 1);

    const predicted = clamp(left + above - corner, Math.min(left, above), Math.max(left, above));
    values[i] = predicted + residual; // wraps at 16 bits
  }
  return values;
}
