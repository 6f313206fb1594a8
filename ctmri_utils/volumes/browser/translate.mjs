// A stack through a network, slice by slice, as network_slices.py and translate.py.

const OTHER = { ct: "mri", mri: "ct" };
const { contract: CONTRACT, scales: SCALES } = PYTHON;

// Bytes that stand in the page as base64 of gzip.
async function embedded(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The networks that make CT and MR; each is unpacked when it is first used, the runtime at once.
class Networks {
  constructor() {
    this.sessions = {};
    this.loading = this.runtime();
  }

  // ONNX Runtime comes as a module, which a page without a network can import as a blob only.
  async runtime() {
    const script = new Blob([await embedded("runtime-script")], { type: "text/javascript" });
    const address = URL.createObjectURL(script);
    const runtime = await import(address);
    runtime.env.wasm.numThreads = 1;
    runtime.env.wasm.wasmBinary = await embedded("runtime-wasm");
    return runtime;
  }

  async load(to) {
    this.ort = await this.loading;
    this.sessions[to] ??= await this.ort.InferenceSession.create(await embedded(`network-${to}`));
  }

  // One slice: CT in HU or MR in [-1, 1] in, the other out.
  async translate(pixels, to) {
    const side = CONTRACT.size;
    const image = new this.ort.Tensor("float32", pixels, [1, 1, side, side]);
    const { translation } = await this.sessions[to].run({ image });
    return translation.data;
  }
}

// What a volume has to be before anything is translated; returns its stack and warnings.
function prepared(volume) {
  const to = OTHER[volume.modality];
  if (!CONTRACT.makes.includes(to)) {
    const made = CONTRACT.makes.map((modality) => MODALITIES[modality]).join(" and ");
    refuse("these weights make", made, MODALITIES[to], MODALITIES[volume.modality]);
  }
  const stack = axialStack(volume, CONTRACT);
  const warnings = checkInput(volume, stack);
  return { ...stack, to, warnings, rim: headAndRim(stack.head, stack.shape) };
}

// The stack as the network takes it: what lies outside of the head is background.
function networkInput({ values, head, rim, to }) {
  if (to === "mri") return values.map((x, i) => (rim[i] ? x : SCALES.ct.low));

  const [low, high] = percentiles(values.filter((_, i) => head[i]), CONTRACT.mri_percentiles);
  if (!(high > low)) refuse("a scale needs", low, high, "MR unit");
  return values.map((x, i) => (rim[i] ? clamp(((x - low) * 2) / (high - low) - 1, -1, 1) : -1));
}

// A translated slice in its unit, background outside of the head.
function physicalSlice(result, rim, to) {
  const { low, high } = SCALES[to];
  return result.map((x, i) => {
    if (!rim[i]) return low;
    return to === "ct" ? x : ((x + 1) * (high - low)) / 2 + low;
  });
}

// Slice numbers, from the middle one of the head outwards; slices without a head need no network.
function slicesToTranslate({ rim, shape }) {
  const areas = sliceAreas(rim, shape[0]);
  const withHead = [...areas.keys()].filter((z) => areas[z]);
  const middle = shape[0] >> 1;
  return withHead.sort((a, b) => Math.abs(a - middle) - Math.abs(b - middle));
}

// The translation on the grid of its source, as the bytes of a NIfTI file.
function niftiOf(volume, stack, translation) {
  const { low } = SCALES[stack.to];
  const values = backOnto(volume, stack, translation, low);
  const [darkest, brightest] = extremes(values);
  if (stack.to === "mri" && brightest - darkest < 100) refuse("values from", darkest, brightest);

  const names = stack.warnings.map((warning) => warning.split(":")[0]);
  const label = PY.SYNTHETIC_LABEL.replace("{}", MODALITIES[stack.to]);
  const space = volume.space >= 1 && volume.space <= 5 ? volume.space : 1;
  return writeNifti({
    values: Int16Array.from(values, evenlyRounded),
    shape: volume.shape,
    affine: volume.affine,
    sides: sidesOf(volume.affine),
    codes: [volume.hasQform ? space : 0, space],
    quaternion: volume.hasQform ? volume.header.quaternion : [0, 0, 0, 0, 0, 0],
    qfac: volume.hasQform && volume.header.pixdim[0] === -1 ? -1 : 1,
    label: names.length ? `${label}; input: ${names.join(", ")}` : label,
    comments: stack.warnings,
  });
}

// To the even one of two whole numbers, as numpy.rint.
function evenlyRounded(x) {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 ? below + 1 : below;
}
