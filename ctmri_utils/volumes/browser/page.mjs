// The page: a file is dropped, its slices are translated one by one, and both are compared.

class OwnScan {
  constructor(root) {
    this.root = root;
    this.networks = new Networks();
    this.run = 0; // a later file or Cancel ends the run before it
    this.find(".contract").textContent = `The networks know ${PYTHON.knows}.`;
    this.listen();
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  listen() {
    const drag = (isOver) => document.body.classList.toggle("dragging", isOver);
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      drag(true);
    });
    document.addEventListener("dragleave", () => drag(false));
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      drag(false);
      const { files } = event.dataTransfer;
      this.translateFile(files[0], files.length);
    });

    const input = this.find("[name=file]");
    input.addEventListener("change", () => {
      this.translateFile(input.files[0]);
      input.value = ""; // so that the same file can be chosen again
    });
    const list = this.find("[name=modality]");
    list.addEventListener("change", () => this.translateFile(this.file));
    this.find("[name=cancel]").addEventListener("click", () => this.cancel());
    this.find("[name=save]").addEventListener("click", () => {
      this.save().catch((error) => this.explain(error));
    });
  }

  tell(text) {
    this.find("[role=status]").textContent = text;
  }

  // From a file to its translation; what does not fit is refused with Python's words.
  async translateFile(file, files = 1) {
    if (!file) return;
    this.file = file;
    const run = ++this.run;
    this.clear();
    if (files > 1) this.note(`note: of ${files} files, ${file.name} was taken; drop one at a time`);
    this.tell(`Reading ${file.name}.`);
    await painted();
    try {
      const volume = await readVolume(file, this.find("[name=modality]").value || null);
      const stack = prepared(volume);
      if (run !== this.run) return;
      await this.show(volume, stack);
      if (run !== this.run) return;
      await this.translateSlices(volume, stack, run);
    } catch (error) {
      if (run !== this.run) return;
      this.find(".work").hidden = true;
      this.explain(error);
    }
  }

  explain(error) {
    const { name } = this.file;
    const failure = `this browser gave up (${error}): use ctmri translate`;
    const reason = error instanceof Refusal ? error.message : failure;
    const isNamed = reason.startsWith(name);
    this.find("[role=alert]").textContent = isNamed ? reason : `${name}: ${reason}`;
  }

  clear() {
    this.viewer?.stop();
    this.viewer = this.result = null;
    this.find("[role=alert]").textContent = "";
    for (const part of [".notes", ".planes", ".comparison"]) this.find(part).replaceChildren();
    this.find("[name=save]").hidden = true;
    this.find("[name=cancel]").hidden = false;
    this.find(".work").hidden = false;
    this.find("progress").removeAttribute("value");
    this.find("progress").hidden = false;
  }

  // The scan in three planes, what was noticed in it, and the viewer, whose translation is empty.
  async show(volume, stack) {
    for (const warning of stack.warnings) this.note(`warning: ${warning}`);
    for (const note of [...volume.notes, ...stack.notes]) this.note(`note: ${note}`);
    const { spec, values } = viewed(stack);
    this.find(".planes").append(...spec.planes.map((plane) => planePicture(spec, values, plane)));

    const model = new Map(Object.entries({ spec, data: values }));
    model.on = model.save_changes = () => {};
    // A place of its own: a viewer that is late must not stand beside that of a later file.
    const place = make("div");
    this.find(".comparison").append(place);
    this.viewer = new SliceViewer(model, place);
    await this.viewer.start();
  }

  note(text) {
    this.find(".notes").append(make("li", {}, text));
  }

  async translateSlices(volume, stack, run) {
    const { viewer } = this;
    const { to, rim } = stack;
    const area = CONTRACT.size ** 2;
    const input = networkInput(stack);
    const translation = new Float32Array(input.length).fill(SCALES[to].low);
    const slices = slicesToTranslate(stack);
    const progress = Object.assign(this.find("progress"), { max: slices.length, value: 0 });
    this.tell(`Preparing the network that makes ${MODALITIES[to]}.`);
    await painted();
    await this.networks.load(to);

    for (const [done, z] of slices.entries()) {
      const pixels = sliceOf(input, z, area).slice();
      const result = await this.networks.translate(pixels, to);
      if (run !== this.run) return;
      const first = z * area;
      translation.set(physicalSlice(result, sliceOf(rim, z, area), to), first);
      viewer.values.set(sliceOf(translation, z, area).map(round), input.length + first);
      viewer.draw();
      progress.value = done + 1;
      this.tell(`${done + 1} of ${slices.length} slices are translated.`);
      await painted();
    }
    if (run !== this.run) return;
    this.result = { volume, stack, translation };
    const source = MODALITIES[volume.modality];
    this.tell(`The ${MODALITIES[to]} made from the ${source} in ${this.file.name} is ready.`);
    this.find("[name=save]").hidden = false;
    this.end();
  }

  end() {
    this.find("[name=cancel]").hidden = true;
    this.find("progress").hidden = true;
  }

  cancel() {
    this.run++;
    this.tell("Cancelled: slices not yet translated are empty. Choose the file again for all.");
    this.end();
  }

  // Named as what it is, and packed.
  async save() {
    const { volume, stack, translation } = this.result;
    const bytes = niftiOf(volume, stack, translation);
    const packed = new Blob([bytes]).stream().pipeThrough(new CompressionStream("gzip"));
    const href = URL.createObjectURL(await new Response(packed).blob());
    const stem = this.file.name.replace(/\.nii(\.gz)?$/i, "");
    make("a", { href, download: `${stem}_synthetic_${stack.to}.nii.gz` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  }
}

// Lets the browser draw and take clicks.
function painted() {
  return new Promise((resolve) => setTimeout(resolve));
}

// The viewer's specification for a stack, and the values of both scans as it stores them.
function viewed({ values, shape: [depth, rows, columns], affine, to }) {
  const spec = structuredClone(PYTHON.viewers[to]);
  const [sliceMm] = sidesOf(affine);
  const [axial, ...upright] = spec.planes;
  axial.slices = depth;
  for (const plane of upright) {
    plane.rows = depth;
    plane.origin = (depth - 1) * rows * columns;
    plane.mm[0] = sliceMm;
  }
  spec.state.slice = depth >> 1;

  const [source] = spec.images;
  if (to === "ct") {
    const [low, high] = extremes(values);
    const [dark, bright] = percentiles(values, [0.5, 99.5]);
    Object.assign(source, { gain: Math.max(high - low, 1e-6) / PY.STORED_STEPS, offset: low });
    source.window = [(dark + bright) / 2, Math.max(bright - dark, source.gain)];
  }
  const stored = new Int16Array(2 * values.length).fill(SCALES[to].low);
  values.forEach((x, i) => {
    stored[i] = clamp(round((x - source.offset) / source.gain), -32768, 32767);
  });
  return { spec, values: stored };
}

// The middle slice of the scan in one plane.
function planePicture({ images: [image], state }, values, plane) {
  const { name, rows, columns, slices, origin, strides, mm } = plane;
  const canvas = make("canvas", { width: columns, height: rows, role: "img", "aria-label": name });
  canvas.style.aspectRatio = `${columns * mm[1]} / ${rows * mm[0]}`;
  const context = canvas.getContext("2d");
  const bitmap = context.createImageData(columns, rows);
  const pixels = new Uint32Array(bitmap.data.buffer);
  const [level, width] = image.window ?? [state.level, state.width];
  const start = origin + (slices >> 1) * strides[0];
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const value = values[start + y * strides[1] + x * strides[2]] * image.gain + image.offset;
      pixels[y * columns + x] = grey(round(255 * clamp((value - level) / width + 0.5, 0, 1)));
    }
  }
  context.putImageData(bitmap, 0, 0);
  return make("figure", {}, canvas, make("figcaption", {}, name));
}

new OwnScan(document.querySelector(".own-scan"));
