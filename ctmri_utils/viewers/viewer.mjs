// The slices of one scan, or of two to be compared, drawn value by value on one canvas.
//
// No dependency, no network, no kernel. pages.py joins the .mjs files into one script, which needs
// no import. specification.py says what `spec` holds; a notebook's widget (anywidget) and a saved
// page call `render`, the last function here.

const SCALE_BAR_LENGTHS = [100, 50, 20, 10, 5, 2, 1]; // mm

class SliceViewer {
  constructor(model, parent) {
    this.model = model;
    this.parent = parent;
    this.spec = model.get("spec");

    // What the reader has chosen: mode, position, plane, slice, zoom, x, y, level, width.
    this.state = { ...this.spec.state };
    this.swapped = false; // the flicker shows the second image
    this.paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.pointer = null; // the last event of a pointer on the canvas

    this.makeStage();
    this.makeModes();
    this.makeControls();
    this.root = make("div", { class: "ctmri" }, this.makeMain());
    if (this.spec.table) {
      this.cases = new Cases(this.spec.table, (start) => this.change({ slice: start }));
      this.root.append(this.cases.root);
    }
  }

  // Building the page

  makeStage() {
    this.canvas = control("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "image viewer",
      "aria-label": this.spec.alt,
    });
    this.context = this.canvas.getContext("2d");
    this.divider = make("i", { class: "divider" });
    this.marks = ["left", "right", "top", "bottom"].map((side) => make("b", { class: side }));
    this.bar = make("span", { class: "bar" });
    this.pane = make("div", { class: "pane" }, ...this.marks, this.bar);
    this.names = ["first", "second"].map((place) => make("span", { class: place }));
    this.stage = make("div", { class: "stage" }, this.canvas, this.divider, this.pane);
    this.stage.append(...this.names);
    this.reading = make("div", { class: "reading" }, "\u00a0");
    this.status = make("div", { class: "status", role: "status" });
  }

  makeModes() {
    const group = `mode${Math.random()}`;
    this.radios = this.spec.modes.map((mode) => {
      const change = () => this.change({ mode });
      return control("input", { type: "radio", value: mode, name: group, change });
    });
    const labels = this.spec.modes.map((mode, k) =>
      make("label", {}, this.radios[k], MODES[mode].title),
    );
    const attributes = { class: "modes", role: "radiogroup", "aria-label": "How to compare" };
    this.radioRow = make("div", attributes, ...labels);
    this.radioRow.hidden = labels.length < 2;
  }

  makeControls() {
    const { windows, planes } = this.spec;
    this.position = this.slider("position");
    this.slice = this.slider("slice");
    this.level = this.slider("level");
    this.width = this.slider("width");
    this.preset = choice([...Object.keys(windows), "own"], (name) => this.useWindow(name));
    this.planes = choice(
      planes.map(({ name }) => name),
      (name) => this.usePlane(name),
    );
  }

  // The state is kept only when the slider is let go of.
  slider(name) {
    const input = ({ target }) => this.change({ [name]: +target.value }, { keep: false });
    return new Field("input", { type: "range", input, change: () => this.keepState() });
  }

  makeMain() {
    const controls = make("div", { class: "controls" });
    controls.append(this.position.row, this.slice.row, this.planes.row);
    if (this.hasWindows()) {
      controls.append(this.preset.row, this.level.row, this.width.row);
    }
    const help = make("details", {}, make("summary", {}, "Keys and mouse"), make("p", {}, HELP));
    const main = make("div", { class: "main" }, this.radioRow, this.stage, this.reading);
    main.append(controls, this.status, help);
    return main;
  }

  // Unpacks the values, draws them for the first time, and starts to listen.
  async start() {
    const { columns } = this.plane("axial");
    try {
      this.values = await unpack(this.model.get("data"), columns, this.spec.groups);
    } catch (error) {
      this.parent.append(`The slices could not be read: ${error}`);
      return;
    }

    new Input(this);
    this.parent.append(this.root);
    for (const name of Object.keys(this.state)) {
      this.take(name);
      this.model.on(`change:${name}`, () => this.take(name));
    }
    this.draw();
    this.flicker();
    this.root.dataset.ready = "true";
  }

  stop() {
    clearTimeout(this.timer);
  }

  // Changing the state

  change(part, { keep = true } = {}) {
    Object.assign(this.state, part);
    this.draw();
    if (keep) this.keepState();
  }

  // The kernel, or a widget linked to this one, has chosen; what this viewer lacks is left alone.
  take(name) {
    const value = this.model.get(name);
    if (value === undefined || value === this.state[name]) return;
    if (name === "mode" && !this.spec.modes.includes(value)) return;
    if (name === "plane" && !this.plane(value)) return;
    this.change({ [name]: value }, { keep: false });
  }

  // The kernel, if there is one, gets a copy of what was chosen.
  keepState() {
    for (const [name, value] of Object.entries(this.state)) this.model.set(name, value);
    this.model.save_changes();
  }

  // A training strip has no windows to choose.
  hasWindows() {
    return Object.keys(this.spec.windows).length > 0;
  }

  useNextWindow() {
    const names = Object.keys(this.spec.windows);
    const index = names.indexOf(this.preset.input.value) + 1;
    this.useWindow(names[index % names.length]);
  }

  useWindow(name) {
    const window = this.spec.windows[name];
    if (window) this.change({ level: window[0], width: window[1] });
  }

  usePlane(name) {
    Object.assign(this.state, { plane: name, zoom: 1 });
    this.change({ slice: this.plane().slices >> 1 });
  }

  // Values and colours

  plane(name = this.state.plane) {
    return this.spec.planes.find((plane) => plane.name === name);
  }

  canvasWidth() {
    const { columns } = this.plane();
    return this.state.mode === "side" ? 2 * columns + GAP : columns;
  }

  // Returns a function: index of a value -> the value in the image's unit.
  physical(image) {
    const { slices, rows, columns } = this.plane("axial");
    const { values } = this;
    const { gain, offset, source } = image;
    const first = source * slices * rows * columns;
    return (i) => values[first + i] * gain + offset;
  }

  // Returns a function: index of a value -> second minus first.
  difference() {
    const [first, second] = this.spec.images.map((image) => this.physical(image));
    return (i) => second(i) - first(i);
  }

  // Returns a function: index of a value -> grey level (0 to 255) through the image's window.
  greyLevel(image) {
    const [level, width] = image.window ?? [this.state.level, this.state.width];
    const physical = this.physical(image);
    return (i) => round(255 * clamp((physical(i) - level) / width + 0.5, 0, 1));
  }

  // Returns a function: place on the canvas -> that place, with the value that is drawn there.
  locator() {
    const { columns, origin, strides } = this.plane();
    const { slice, zoom, x: firstColumn, y: firstRow } = this.state;
    const [step, down, right] = strides;
    const start = origin + slice * step;

    return (x, y) => {
      const inPane = x < columns ? x : Math.max(x - columns - GAP, 0);
      const row = firstRow + Math.floor(y / zoom);
      const column = firstColumn + Math.floor(inPane / zoom);
      return { x, y, inPane, row, column, i: start + row * down + column * right };
    };
  }

  // Drawing

  draw() {
    this.keepInside();
    const { rows } = this.plane();
    const width = this.canvasWidth();
    if (this.canvas.width !== width || this.canvas.height !== rows) {
      Object.assign(this.canvas, { width, height: rows });
    }

    const bitmap = this.context.createImageData(width, rows);
    const pixels = new Uint32Array(bitmap.data.buffer);
    const paint = painter(this);
    const locate = this.locator();
    let n = 0;
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) pixels[n++] = paint(locate(x, y).i, x, y);
    }
    this.context.putImageData(bitmap, 0, 0);

    this.describeStage(width);
    this.describeNames(width);
    this.describeControls();
    this.describeSlice();

    // What is drawn under a pointer at rest may have changed.
    if (this.pointer) this.read(this.pointer);
  }

  // Slice and zoomed part stay within the plane.
  keepInside() {
    const { state } = this;
    const { rows, columns, slices } = this.plane();
    state.slice = clamp(state.slice, 0, slices - 1);
    state.x = clamp(state.x, 0, columns - Math.ceil(columns / state.zoom));
    state.y = clamp(state.y, 0, rows - Math.ceil(rows / state.zoom));
  }

  // Size, divider, side letters and scale bar.
  describeStage(canvasWidth) {
    const { mode, position } = this.state;
    const { rows, columns, mm, marks } = this.plane();
    const [rowMm, columnMm] = mm ?? [1, 1];
    this.root.dataset.mode = mode;
    this.stage.style.maxWidth = canvasWidth > columns ? "900px" : "448px";
    this.canvas.style.aspectRatio = `${canvasWidth * columnMm} / ${rows * rowMm}`;

    const split = Math.round((canvasWidth * position) / 100);
    this.divider.style.left = `${(100 * split) / canvasWidth}%`;
    this.pane.style.width = `${(100 * columns) / canvasWidth}%`;
    this.marks.forEach((mark, k) => {
      mark.textContent = marks[k] ?? "";
    });
    this.describeScaleBar();
  }

  describeScaleBar() {
    const { columns, mm } = this.plane();
    this.bar.classList.toggle("ruler", Boolean(mm));
    if (!mm) {
      this.bar.textContent = this.spec.read ? "pixel size unknown" : "";
      this.bar.style.width = "";
      return;
    }

    const shownMm = (columns * mm[1]) / this.state.zoom;
    const length = SCALE_BAR_LENGTHS.find((candidate) => candidate <= shownMm / 3) ?? 1;
    this.bar.textContent = `${length} mm`;
    this.bar.style.width = `${(100 * length) / shownMm}%`;
  }

  // The names of the images that the mode shows, each over its own pane.
  describeNames(canvasWidth) {
    const { images, windows } = this.spec;
    const { columns } = this.plane();
    let shown = images;
    if (this.state.mode === "single") shown = [images[0]];
    if (this.state.mode === "flicker") shown = [images[this.swapped ? 1 : 0]];
    if (this.state.mode === "uncertainty") shown = [images[1]];
    this.names.forEach((element, k) => {
      element.textContent = shown[k] ? shown[k].name || windowName(windows, this.state) : "";
    });

    const secondPane = (100 * (columns + GAP)) / canvasWidth;
    this.names[1].style.left = canvasWidth > columns ? `calc(${secondPane}% + 6px)` : "";
  }

  describeControls() {
    const { spec, state } = this;
    const { columns, slices } = this.plane();
    const { slider } = MODES[state.mode];
    const [min, max, step] = spec.range;
    this.radios.forEach((radio) => {
      radio.checked = radio.value === state.mode;
    });
    this.position.show(slider, state.position, {
      text: positionText(state.mode, state.position, spec, columns),
      hidden: !slider,
      range: { min: 0, max: 100 },
    });
    this.slice.show("Slice", state.slice, {
      text: `${state.slice + 1} of ${slices}`,
      hidden: slices < 2,
      range: { min: 0, max: slices - 1 },
    });
    this.planes.show("Plane", state.plane, { hidden: spec.planes.length < 2 });
    this.preset.show("Window", windowName(spec.windows, state) || "own");
    this.level.show("Level", state.level, {
      text: `${short(state.level)} ${spec.unit}`,
      range: { min, max, step },
    });
    this.width.show("Width", state.width, {
      text: `${short(state.width)} ${spec.unit}`,
      range: { min: step, max: 1.25 * (max - min), step },
    });
  }

  describeSlice() {
    const { slice, zoom, mode } = this.state;
    const { name, labels, slices } = this.plane();
    const parts = [labels[slice] ?? `${name} slice ${slice + 1} of ${slices}`];
    if (zoom > 1) parts.push(`zoom ${zoom}`);
    if (MODES[mode].legend) parts.push(MODES[mode].legend);
    this.status.textContent = parts.filter(Boolean).join(" · ");
    this.cases?.mark(labels[slice]);
  }

  // Shows the other image by hand, and ends the flicker.
  swap() {
    this.paused = true;
    this.swapped = !this.swapped;
    this.draw();
  }

  // Two images in turn, in that mode, until `stop`.
  flicker() {
    this.timer = setTimeout(() => this.flicker(), 1000 / changesPerSecond(this.state.position));
    if (this.state.mode === "flicker" && !this.paused && this.canvas.isConnected) {
      this.swapped = !this.swapped;
      this.draw();
    }
  }

  // Reading values

  // The place on the canvas under a pointer, and the value that is drawn there.
  under(event) {
    const { canvas } = this;
    const box = canvas.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * canvas.height);
    return this.locator()(clamp(x, 0, canvas.width - 1), clamp(y, 0, canvas.height - 1));
  }

  // Writes the values under the pointer below the picture.
  read(event) {
    this.pointer = event;
    const { spec } = this;
    if (!spec.read) return;

    // An image that shows the same values once more is not read twice.
    const distinct = spec.images.filter(({ source }, k) => source === k);
    const { row, column, i } = this.under(event);
    const parts = distinct.map(
      (image) => `${image.name} ${short(this.physical(image)(i))} ${image.unit}`,
    );
    if (spec.modes.includes("difference")) {
      const error = this.difference()(i);
      parts.push(`difference ${error > 0 ? "+" : ""}${short(error)} ${spec.unit}`);
    }
    this.reading.textContent = `row ${row}, column ${column}: ${parts.join(" · ")}`;
  }

  stopReading() {
    this.pointer = null;
    this.reading.textContent = "\u00a0";
  }
}

async function render({ model, el }) {
  const slices = new SliceViewer(model, el);
  await slices.start();
  return () => slices.stop();
}

export default { render };
