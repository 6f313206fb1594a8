// The slices of one scan, or of two to be compared, drawn value by value on one canvas. No dependency, no network, no kernel.
const MODES = {                                                  // title, what the position slider means, and what the colours mean
  single: ["Slice"],
  wipe: ["Wipe", "Divider", (p) => `${p} %`],
  side: ["Side by side"],
  blend: ["Blend", "Share of the second", (p) => `${p} %`],
  difference: ["Difference", "Full colour at", (p, spec) => `±${short(limitAt(p, spec))} ${spec.unit}`, "red: the second is higher, blue: lower"],
  checker: ["Checkerboard", "Square", (p, spec, width) => `${cellAt(p, width)} pixels`],
  flicker: ["Flicker", "Changes a second", (p) => rateAt(p).toFixed(1)],
  doubt: ["Doubt", "Full colour at", (p, { images: [, , doubt] }) => `${short(limitAt(p, doubt))} ${doubt.unit}`, "orange: the error to expect"],
};
const GAP = 2, GROUPS = 18, BLACK = 0xff000000, BETWEEN = 0xff808080, ZOOMS = [1, 2, 3, 4, 6, 8];
const limitAt = (p, spec) => Math.max(spec.limit * (100 - p) / 50, spec.limit / 50);
const cellAt = (p, width) => Math.max(1, Math.round(width * p / 400));
const rateAt = (p) => 0.5 + p / 40;                              // at most 3 a second: more can harm
const clamp = (value, low, high) => Math.min(Math.max(value, low), high), round = (value) => Math.floor(value + 0.5);
const short = (value) => String(Math.abs(value) < 100 ? +value.toPrecision(3) : Math.round(value));
const grey = (level) => BLACK | level * 0x010101;
const RED = [255, 0, 0], BLUE = [0, 0, 255], ORANGE = [230, 159, 0];
function tint(level, [red, green, blue], part) {                 // a grey level under so much of a colour
  const share = clamp(part, 0, 1), mix = (other) => round(level * (1 - share) + other * share);
  return BLACK | mix(blue) << 16 | mix(green) << 8 | mix(red);
}

function make(tag, attributes = {}, ...children) {               // a function as attribute is called on the event of that name
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node[typeof value === "function" ? "addEventListener" : "setAttribute"](name, value);
  node.append(...children);
  return node;
}

// JupyterLab takes arrow keys for its cells, unless the focused element itself says otherwise.
const control = (tag, attributes, ...children) => make(tag, { ...attributes, "data-lm-suppress-shortcuts": "true" }, ...children);

function field(tag, attributes, ...children) {                   // a labelled slider or select
  const input = control(tag, attributes, ...children), title = make("span"), output = make("output");
  const row = make("label", {}, title, input, output);
  const show = (name, value, text = "", hidden = false, range = {}) => {
    Object.assign(input, range, { value });
    input.setAttribute("aria-valuetext", text);
    title.textContent = name; output.textContent = text; row.hidden = hidden;
  };
  return { row, show, input };
}

// The values that viewer.pack, which says how, has stored.
async function unpack(packed, columns) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const stored = await new Response(stream).arrayBuffer(), next = new Uint32Array(stored, 0, GROUPS);
  const bytes = new Uint8Array(stored, 4 * GROUPS), total = bytes.length / 2, values = new Int16Array(total);
  for (let i = 0; i < total; i++) {
    const left = values[i - 1] | 0, above = values[i - columns] | 0, corner = values[i - columns - 1] | 0;
    const place = next[32 - Math.clz32(Math.abs(left - corner) + Math.abs(above - corner))]++;
    const code = bytes[place] | bytes[total + place] << 8;
    values[i] = clamp(left + above - corner, Math.min(left, above), Math.max(left, above)) + ((code >>> 1) ^ -(code & 1));
  }
  return values;
}

async function render({ model, el }) {
  const spec = model.get("spec"), { images, modes, windows, range: [min, max, step] } = spec, state = { ...spec.state, ...model.get("state") };
  const canvas = control("canvas", { tabindex: 0, role: "application", "aria-roledescription": "image viewer", "aria-label": spec.alt });
  const divider = make("i", { class: "divider" }), marks = ["left", "right", "top", "bottom"].map((side) => make("b", { class: side }));
  const bar = make("span", { class: "bar" }), pane = make("div", { class: "pane" }, ...marks, bar);
  const names = [make("span", { class: "first" }), make("span", { class: "second" })];
  const stage = make("div", { class: "stage" }, canvas, divider, pane, ...names);
  const reading = make("div", { class: "reading" }, "\u00a0"), said = make("div", { class: "said", role: "status" });
  const rest = () => { model.set("state", { ...state }); model.save_changes(); };
  const change = (part, resting = true) => { Object.assign(state, part); draw(); if (resting) rest(); };
  const group = `mode${Math.random()}`, radio = (mode) => ({ type: "radio", value: mode, name: group, change: () => change({ mode }) });
  const radios = modes.map((mode) => make("label", {}, control("input", radio(mode)), MODES[mode][0]));
  const slider = (name) => field("input", { type: "range", input: ({ target }) => change({ [name]: +target.value }, false), change: rest });
  const position = slider("position"), slice = slider("slice"), level = slider("level"), width = slider("width");
  const choice = (names, pick) => field("select", { change: ({ target }) => pick(target.value) }, ...names.map((name) => make("option", {}, name)));
  const preset = choice([...Object.keys(windows), "own"], (name) => useWindow(name));
  const planes = choice(spec.planes.map(({ name }) => name), (name) => {
    Object.assign(state, { plane: name, zoom: 1 });
    change({ slice: plane().slices >> 1 });
  });
  const radioRow = make("div", { class: "modes", role: "radiogroup", "aria-label": "How to compare" }, ...radios);
  const windowed = Object.keys(windows).length ? [preset.row, level.row, width.row] : [];
  const controls = make("div", { class: "controls" }, position.row, slice.row, planes.row, ...windowed);
  const help = make("details", {}, make("summary", {}, "Keys and mouse"), make("p", {},
    "On the picture: ← → position, ↑ ↓ slice, 1 to 7 way of comparing, + − 0 zoom, w next window, space swaps while flickering. Mouse: drag " +
    "the divider, or the zoomed picture (in a wipe with Shift); with the right button level and width; after a click the wheel changes the " +
    "slice, with Ctrl the zoom; double click resets the zoom."));
  radioRow.hidden = modes.length < 2;
  const root = make("div", { class: "ctmri" }, make("div", { class: "main" }, radioRow, stage, reading, controls, said, help));
  const markCase = spec.table && cases(root, spec.table, (start) => change({ slice: start }));
  const { slices: depth, rows: height, columns: across } = spec.planes[0];
  const values = await unpack(model.get("data"), across).catch((error) => el.append(`The slices could not be read: ${error}`));
  if (!values) return;

  const context = canvas.getContext("2d"), plane = () => spec.planes.find(({ name }) => name === state.plane);
  const physical = (image, i) => values[image.source * depth * height * across + i] * image.gain + image.offset;
  const difference = (i) => physical(images[1], i) - physical(images[0], i);
  let pointer, swapped = false, paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const useWindow = (name) => windows[name] && change({ level: windows[name][0], width: windows[name][1] });

  function picker(w) {                                           // (index of a value, x, y on the canvas) -> colour, for the mode
    const p = state.position, { columns } = plane(), split = Math.round(w * p / 100), cell = cellAt(p, columns);
    const [first, second = first] = images.map((image) => {
      const [level, width] = image.window ?? [state.level, state.width];
      return (i) => round(255 * clamp((physical(image, i) - level) / width + 0.5, 0, 1));
    });
    return {
      single: (i) => grey(first(i)),
      wipe: (i, x) => grey(x < split ? first(i) : second(i)),
      side: (i, x) => x < columns ? grey(first(i)) : x < columns + GAP ? BETWEEN : grey(second(i)),
      blend: (i) => grey(round(((100 - p) * first(i) + p * second(i)) / 100)),
      difference: (i) => tint(255, difference(i) < 0 ? BLUE : RED, Math.abs(difference(i)) / limitAt(p, spec)),
      checker: (i, x, y) => grey((Math.floor(x / cell) + Math.floor(y / cell)) % 2 ? second(i) : first(i)),
      flicker: (i) => grey(swapped ? second(i) : first(i)),
      doubt: (i) => tint(second(i), ORANGE, physical(images[2], i) / limitAt(p, images[2])),
    }[state.mode];
  }

  function draw() {
    const { rows, columns, slices } = plane(), w = state.mode === "side" ? 2 * columns + GAP : columns;
    state.slice = clamp(state.slice, 0, slices - 1);
    state.x = clamp(state.x, 0, columns - Math.ceil(columns / state.zoom));
    state.y = clamp(state.y, 0, rows - Math.ceil(rows / state.zoom));
    if (canvas.width !== w || canvas.height !== rows) Object.assign(canvas, { width: w, height: rows });
    const bitmap = context.createImageData(w, rows), pixels = new Uint32Array(bitmap.data.buffer), colour = picker(w), at = locator();
    for (let y = 0, n = 0; y < rows; y++) for (let x = 0; x < w; x++) pixels[n++] = colour(at(x, y).i, x, y);
    context.putImageData(bitmap, 0, 0);
    describe(w);
    if (pointer) read(pointer);
  }

  function describe(w) {
    const { mode, position: p, zoom } = state, { rows, columns, slices, mm, marks: letters, name, labels } = plane();
    const [, title, text, legend] = MODES[mode], two = w > columns, [dy, dx] = mm ?? [1, 1];
    root.dataset.mode = mode;
    stage.style.maxWidth = two ? "900px" : "448px";
    canvas.style.aspectRatio = `${w * dx} / ${rows * dy}`;
    divider.style.left = `${100 * Math.round(w * p / 100) / w}%`;
    pane.style.width = `${100 * columns / w}%`;
    marks.forEach((mark, k) => { mark.textContent = letters[k] ?? ""; });
    const shown = columns * dx / zoom, length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm <= shown / 3) ?? 1;
    bar.textContent = mm ? `${length} mm` : spec.read ? "pixel size unknown" : "";
    bar.style.width = mm ? `${100 * length / shown}%` : "";
    bar.classList.toggle("ruler", Boolean(mm));
    const seen = mode === "flicker" ? [images[+swapped]] : mode === "doubt" ? [images[1]] : images;
    names.forEach((node, k) => { node.textContent = seen[k]?.name ?? ""; });
    names[1].style.left = two ? `calc(${100 * (columns + GAP) / w}% + 6px)` : "";
    radios.forEach((row) => { row.firstChild.checked = row.firstChild.value === mode; });
    const known = Object.keys(windows).find((name) => windows[name][0] === state.level && windows[name][1] === state.width);
    preset.show("Window", known ?? "own"); planes.show("Plane", name, "", spec.planes.length < 2);
    position.show(title, p, text?.(p, spec, columns), !title, { min: 0, max: 100 });
    slice.show("Slice", state.slice, `${state.slice + 1} of ${slices}`, slices < 2, { min: 0, max: slices - 1 });
    level.show("Level", state.level, `${short(state.level)} ${spec.unit}`, false, { min, max, step });
    width.show("Width", state.width, `${short(state.width)} ${spec.unit}`, false, { min: step, max: 1.25 * (max - min), step });
    said.textContent = [labels[state.slice] ?? `${name} slice ${state.slice + 1} of ${slices}`, zoom > 1 ? `zoom ${zoom}` : "", legend]
      .filter(Boolean).join(" · ");
    markCase?.(labels[state.slice]);
  }

  function locator() {                                           // a place on the canvas -> the value that is drawn there
    const { columns, origin, strides: [step, down, right] } = plane(), start = origin + state.slice * step, { zoom } = state;
    return (x, y) => {
      const inPane = x < columns ? x : Math.max(x - columns - GAP, 0);
      const row = state.y + Math.floor(y / zoom), column = state.x + Math.floor(inPane / zoom);
      return { x, y, inPane, row, column, i: start + row * down + column * right };
    };
  }
  function under(event) {
    const box = canvas.getBoundingClientRect(), part = (place, size, count) => clamp(Math.floor(place / size * count), 0, count - 1);
    return locator()(part(event.clientX - box.left, box.width, canvas.width), part(event.clientY - box.top, box.height, canvas.height));
  }

  function read(event) {
    pointer = event;                                             // what is drawn under a pointer at rest may change
    if (!spec.read) return;
    const { row, column, i } = under(event);
    const parts = images.filter(({ source }, k) => source === k).map((image) => `${image.name} ${short(physical(image, i))} ${image.unit}`);
    if (modes.includes("difference")) parts.push(`difference ${difference(i) > 0 ? "+" : ""}${short(difference(i))} ${spec.unit}`);
    reading.textContent = `row ${row}, column ${column}: ${parts.join(" · ")}`;
  }

  const zoomBy = (by, { row, column, inPane, y } = locator()(plane().columns >> 1, plane().rows >> 1)) => {  // keeps that value in place
    const zoom = ZOOMS[clamp(ZOOMS.indexOf(state.zoom) + by, 0, ZOOMS.length - 1)];
    change({ zoom, x: column - Math.floor(inPane / zoom), y: row - Math.floor(y / zoom) });
  };

  let drag;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const what = event.button === 2 && windowed.length ? "window" : state.mode === "wipe" && !event.shiftKey ? "wipe" : "pan";
    drag = { what, from: { ...state }, place: under(event), event };
    follow(event);
    event.preventDefault();
  });
  function follow(event) {
    if (!drag) return read(event);
    const { from, what, place } = drag, here = under(event), by = (one, other) => Math.round((one - other) / state.zoom);
    const pace = step * Math.max(1, Math.round(from.width / step / 200)), moved = (axis) => Math.round(event[axis] - drag.event[axis]) * pace;
    if (what === "wipe") change({ position: Math.round(100 * (here.x + 0.5) / canvas.width) }, false);
    else if (what === "pan") change({ x: from.x - by(here.x, place.x), y: from.y - by(here.y, place.y) }, false);
    else change({ width: clamp(from.width + moved("clientX"), step, 1.25 * (max - min)), level: clamp(from.level - moved("clientY"), min, max) }, false);
    read(event);
  }
  canvas.addEventListener("pointermove", follow);
  canvas.addEventListener("lostpointercapture", () => { drag = null; rest(); });
  canvas.addEventListener("pointerleave", () => { pointer = null; reading.textContent = "\u00a0"; });
  canvas.addEventListener("contextmenu", (event) => { event.preventDefault(); event.stopPropagation(); });
  canvas.addEventListener("dblclick", () => change({ zoom: 1 }));
  canvas.addEventListener("wheel", (event) => {
    if (canvas.getRootNode().activeElement !== canvas) return;   // before a click the wheel scrolls the page, as everywhere
    event.preventDefault();
    if (event.ctrlKey || event.shiftKey) zoomBy(-Math.sign(event.deltaY || event.deltaX), under(event));
    else change({ slice: state.slice + Math.sign(event.deltaY) });
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const presets = Object.keys(windows), moved = (by) => clamp(state.position + by * (event.shiftKey ? 10 : 1), 0, 100);
    const action = {
      ArrowLeft: () => change({ position: moved(-1) }), ArrowRight: () => change({ position: moved(1) }),
      ArrowUp: () => change({ slice: state.slice + 1 }), ArrowDown: () => change({ slice: state.slice - 1 }),
      Home: () => change({ slice: 0 }), End: () => change({ slice: plane().slices - 1 }),
      "+": () => zoomBy(1), "-": () => zoomBy(-1), 0: () => change({ zoom: 1 }),
      w: () => useWindow(presets[(presets.indexOf(preset.input.value) + 1) % presets.length]),
      " ": () => { paused = true; swapped = !swapped; draw(); },
    }[event.key] ?? (modes[event.key - 1] && (() => change({ mode: modes[event.key - 1] })));
    if (!action) return;
    event.preventDefault(); event.stopPropagation();
    action();
  });

  el.append(root);
  draw();
  let timer;
  (function flicker() {
    timer = setTimeout(flicker, 1000 / rateAt(state.position));
    if (state.mode === "flicker" && !paused && canvas.isConnected) { swapped = !swapped; draw(); }
  })();
  root.dataset.ready = "true";
  return () => clearTimeout(timer);
}

// A table of cases, worst first, and a scatter of its first two numbers; either chooses the slice.
function cases(root, { columns, rows }, pick) {
  const chooser = ({ name, start }, attributes, ...children) =>
    control("button", { type: "button", "data-case": name, click: () => pick(start), ...attributes }, ...children);
  const lines = rows.map((row) => make("tr", {}, make("td", {}, chooser(row, {}, row.name)),
    ...row.numbers.map((value) => make("td", {}, Number.isFinite(value) ? short(value) : value))));
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const list = make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  const drawn = rows.filter(({ numbers }) => numbers.length > 1 && numbers.slice(0, 2).every(Number.isFinite));
  const place = (row, axis) => {
    const all = drawn.map(({ numbers }) => numbers[axis]), low = Math.min(...all), high = Math.max(...all);
    return 5 + 90 * (high > low ? (row.numbers[axis] - low) / (high - low) : 0.5);
  };
  const dots = drawn.map((row) => chooser(row, { class: "dot", title: row.name, tabindex: -1,
    style: `left: ${place(row, 0)}%; bottom: ${place(row, 1)}%` }));                       // the table has them for the keyboard
  const plot = make("div", { class: "plot", "aria-hidden": true }, make("span", {}, `↑ ${columns[2]}`), make("span", {}, `${columns[1]} →`), ...dots);
  plot.hidden = !dots.length;
  root.append(make("div", { class: "cases" }, make("div", { class: "scroll" }, list), plot));
  return (label) => root.querySelectorAll(".cases button").forEach((one) => one.setAttribute("aria-current", one.dataset.case === label));
}

export default { render };
