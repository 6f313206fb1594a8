// The slices of one scan, or of two to be compared, drawn value by value on one canvas. No dependency, no network, no kernel.
const MODES = {                                                  // title, and what the position slider means
  single: ["Slice"],
  wipe: ["Wipe", "Divider", (p) => `${p} %`],
  side: ["Side by side"],
  blend: ["Blend", "Share of the second", (p) => `${p} %`],
  difference: ["Difference", "Full colour at", (p, spec) => `±${short(limitAt(p, spec))} ${spec.unit}`],
  checker: ["Checkerboard", "Square", (p, spec, width) => `${cellAt(p, width)} pixels`],
  flicker: ["Flicker", "Changes a second", (p) => rateAt(p).toFixed(1)],
};
const GAP = 2, OFFSET = 32768, BLACK = 0xff000000, BETWEEN = 0xff808080, ZOOMS = [1, 2, 3, 4, 6, 8];
const limitAt = (p, spec) => Math.max(spec.limit * (100 - p) / 50, spec.limit / 50);
const cellAt = (p, width) => Math.max(1, Math.round(width * p / 400));
const rateAt = (p) => 0.5 + p / 40;                              // at most 3 a second: more can harm
const clamp = (value, low, high) => Math.min(Math.max(value, low), high), round = (value) => Math.floor(value + 0.5);
const short = (value) => String(Math.abs(value) < 100 ? +value.toPrecision(3) : Math.round(value));
const grey = (level) => BLACK | level * 0x010101;
const rgb = (red, green, blue) => BLACK | round(255 * blue) << 16 | round(255 * green) << 8 | round(255 * red);

function make(tag, attributes = {}, ...children) {
  const node = document.createElementNS(/^(svg|circle|text)$/.test(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// JupyterLab takes arrow keys for its cells, unless the focused element itself says otherwise.
const control = (tag, attributes, ...children) => make(tag, { ...attributes, "data-lm-suppress-shortcuts": "true" }, ...children);

function slider(onMove, onRest) {
  const input = control("input", { type: "range" }), title = make("span"), output = make("output");
  input.addEventListener("input", () => onMove(+input.value));
  input.addEventListener("change", onRest);
  const show = (name, value, text, min, max, step = 1) => {
    Object.assign(input, { min, max, step, value });
    input.setAttribute("aria-valuetext", text);
    title.textContent = name; output.textContent = text; row.hidden = max <= min;
  }, row = make("label", {}, title, input, output);
  return { row, show };
}

// Stored by viewer.pack: differences of neighbours, small ones first, low bytes before high bytes, deflated.
async function unpack(packed, counts) {
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer()), total = bytes.length / 2, all = new Int16Array(total);
  for (let i = 0, value = 0; i < total; i++) {
    const code = bytes[i] | bytes[total + i] << 8;
    all[i] = value += (code >>> 1) ^ -(code & 1);                // wraps, as it did in NumPy
  }
  let start = 0;
  return counts.map((count) => all.subarray(start, start += count));
}

function render({ model, el }) {
  const spec = model.get("spec"), { images, modes, windows, range } = spec, state = { ...spec.state, ...model.get("state") };
  const canvas = control("canvas", { tabindex: 0, role: "application", "aria-roledescription": "image viewer", "aria-label": spec.alt });
  const divider = make("i", { class: "divider" }), marks = ["left", "right", "top", "bottom"].map((side) => make("b", { class: side }));
  const bar = make("span", { class: "bar" }), pane = make("div", { class: "pane" }, ...marks, bar);
  const names = [make("span", { class: "first" }), make("span", { class: "second" })];
  const stage = make("div", { class: "stage" }, canvas, divider, pane, ...names);
  const reading = make("div", { class: "reading" }, "\u00a0"), said = make("div", { class: "said", role: "status" });
  const rest = () => { model.set("state", { ...state }); model.save_changes(); };
  const change = (part, resting = true) => { Object.assign(state, part); draw(); if (resting) rest(); };
  const choice = (label, options, pick) => {
    const select = control("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
    select.addEventListener("change", () => pick(select.value));
    return { select, row: make("label", {}, make("span", {}, label), select, make("output")) };
  };
  const radios = modes.map((mode) => {
    const radio = control("input", { type: "radio", value: mode, name: `mode${Math.random()}` });
    radio.addEventListener("change", () => change({ mode }));
    return make("label", {}, radio, MODES[mode][0]);
  });
  const move = (name) => slider((value) => change({ [name]: value }, false), rest);
  const position = move("position"), slice = move("slice"), level = move("level"), width = move("width");
  const preset = choice("Window", [...Object.keys(windows).map((name) => [name, name]), ["", "own"]], (name) => useWindow(name));
  const planes = choice("Plane", spec.planes.map(({ name }, i) => [i, name]), (i) => change({ plane: +i, slice: spec.planes[i].middle, zoom: 1 }));
  const radioRow = make("div", { class: "modes", role: "radiogroup", "aria-label": "How to compare" }, ...radios);
  const windowed = Object.keys(windows).length ? [preset.row, level.row, width.row] : [];
  const controls = make("div", { class: "controls" }, position.row, slice.row, planes.row, ...windowed);
  const help = make("details", {}, make("summary", {}, "Keys and mouse"), make("p", {},
    "On the picture: ← → position, ↑ ↓ slice, 1 to 6 way of comparing, + − 0 zoom, w next window, space swaps while flickering. " +
    "Mouse: drag the divider, or the zoomed picture (with Shift in a wipe); drag with the right button for level and width; " +
    "after a click the wheel changes the slice, with Ctrl the zoom; double click resets the zoom."));
  radioRow.hidden = modes.length < 2; planes.row.hidden = spec.planes.length < 2;
  const root = make("div", { class: "ctmri" }, make("div", { class: "main" }, radioRow, stage, reading, controls, said, help));
  const table = spec.table && cases(spec.table, (start) => change({ slice: start }));
  if (table) root.append(table.node);

  const context = canvas.getContext("2d"), plane = () => spec.planes[state.plane];
  const physical = (image, i) => values[image.source][i] * image.gain + image.offset;
  let pointer, values, lookups = [], lookedUp = "", bitmap, pixels, swapped = false, paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const inPane = (x) => x < plane().columns ? x : Math.max(x - plane().columns - GAP, 0);
  const useWindow = (name) => name && change({ level: windows[name][0], width: windows[name][1] });

  function lookUp() {                                            // stored value -> grey, anew only when the window changed
    if (lookedUp === `${state.level} ${state.width}`) return;
    lookedUp = `${state.level} ${state.width}`;
    lookups = images.map((image, k) => {
      if (image.window && lookups[k]) return lookups[k];
      const [centre, full] = image.window ?? [state.level, state.width], table = new Uint8Array(2 * OFFSET);
      for (let i = 0; i < table.length; i++) {
        table[i] = round(255 * clamp(((i - OFFSET) * image.gain + image.offset - centre) / full + 0.5, 0, 1));
      }
      return table;
    });
  }

  function picker(w) {                                           // (index of a value, x, y on the canvas) -> colour, for the mode
    const p = state.position, { columns } = plane(), split = Math.round(w * p / 100), cell = cellAt(p, columns), limit = limitAt(p, spec);
    const [first, second = first] = images.map((image, k) => (i) => lookups[k][values[image.source][i] + OFFSET]);
    return {
      single: (i) => grey(first(i)),
      wipe: (i, x) => grey(x < split ? first(i) : second(i)),
      side: (i, x) => x < columns ? grey(first(i)) : x < columns + GAP ? BETWEEN : grey(second(i)),
      blend: (i) => grey(round(((100 - p) * first(i) + p * second(i)) / 100)),
      difference: (i) => {
        const error = clamp((physical(images[1], i) - physical(images[0], i)) / limit, -1, 1);
        return error < 0 ? rgb(1 + error, 1 + error, 1) : rgb(1, 1 - error, 1 - error);
      },
      checker: (i, x, y) => grey((Math.floor(x / cell) + Math.floor(y / cell)) % 2 ? second(i) : first(i)),
      flicker: (i) => grey(swapped ? second(i) : first(i)),
    }[state.mode];
  }

  function draw() {
    if (!values) return;
    const { rows, columns, slices, origin, strides: [step, down, right] } = plane(), w = state.mode === "side" ? 2 * columns + GAP : columns;
    state.slice = clamp(state.slice, 0, slices - 1);
    state.x = clamp(state.x, 0, columns - Math.ceil(columns / state.zoom));
    state.y = clamp(state.y, 0, rows - Math.ceil(rows / state.zoom));
    if (bitmap?.width !== w || bitmap.height !== rows) {
      Object.assign(canvas, { width: w, height: rows });
      bitmap = context.createImageData(w, rows);
      pixels = new Uint32Array(bitmap.data.buffer);
    }
    lookUp();
    const colour = picker(w), start = origin + state.slice * step, across = new Int32Array(w);
    for (let x = 0; x < w; x++) across[x] = (state.x + Math.floor(inPane(x) / state.zoom)) * right;
    for (let y = 0, n = 0; y < rows; y++) {
      const row = start + (state.y + Math.floor(y / state.zoom)) * down;
      for (let x = 0; x < w; x++) pixels[n++] = colour(row + across[x], x, y);
    }
    context.putImageData(bitmap, 0, 0);
    describe(w);
    if (pointer) read(pointer);
  }

  function describe(w) {
    const { mode, position: p, zoom } = state, { rows, columns, slices, mm, marks: letters, name, labels } = plane();
    const [, title, text] = MODES[mode], two = w > columns, [dy, dx] = mm ?? [1, 1];
    root.dataset.mode = mode;
    stage.style.maxWidth = two ? "900px" : "448px";
    canvas.style.aspectRatio = `${w * dx} / ${rows * dy}`;
    divider.style.left = `${100 * Math.round(w * p / 100) / w}%`;
    pane.style.width = `${100 * columns / w}%`;
    marks.forEach((mark, k) => { mark.textContent = letters[k] ?? ""; });
    const shown = columns * dx / zoom, length = [100, 50, 20, 10, 5, 2, 1].find((mm) => mm <= shown / 3) ?? 1;
    bar.textContent = mm ? `${length} mm` : "pixel size unknown";
    bar.style.width = mm ? `${100 * length / shown}%` : "";
    bar.classList.toggle("ruler", Boolean(mm));
    names.forEach((node, k) => { node.textContent = images[k]?.name ?? ""; });
    names[1].hidden = images.length < 2 || mode === "flicker" && !swapped;
    names[0].hidden = mode === "flicker" && swapped;
    names[1].style.left = two ? `calc(${100 * (columns + GAP) / w}% + 6px)` : "";
    radios.forEach((row) => { row.firstChild.checked = row.firstChild.value === mode; });
    const window = Object.keys(windows).find((name) => windows[name][0] === state.level && windows[name][1] === state.width) ?? "";
    Object.assign(preset.select, { value: window }); Object.assign(planes.select, { value: state.plane });
    position.show(title, p, text?.(p, spec, columns), 0, title ? 100 : 0);
    slice.show("Slice", state.slice, `${state.slice + 1} of ${slices}`, 0, slices - 1);
    level.show("Level", state.level, `${short(state.level)} ${spec.unit}`, range[0], range[1], range[2]);
    width.show("Width", state.width, `${short(state.width)} ${spec.unit}`, range[2], 1.25 * (range[1] - range[0]), range[2]);
    said.textContent = [labels[state.slice] ?? `${name} slice ${state.slice + 1} of ${slices}`, zoom > 1 ? `zoom ${zoom}` : "",
      mode === "difference" ? "red: the second is higher, blue: lower" : ""].filter(Boolean).join(" · ");
    table?.mark(state.slice);
  }

  function at(x, y) {                                            // a place on the canvas, and the value that is drawn there
    const { origin, strides: [step, down, right] } = plane();
    const column = state.x + Math.floor(inPane(x) / state.zoom), row = state.y + Math.floor(y / state.zoom);
    return { x, y, row, column, i: origin + state.slice * step + row * down + column * right };
  }
  function under(event) {
    const box = canvas.getBoundingClientRect(), part = (place, size, count) => clamp(Math.floor(place / size * count), 0, count - 1);
    return at(part(event.clientX - box.left, box.width, canvas.width), part(event.clientY - box.top, box.height, canvas.height));
  }

  function read(event) {
    pointer = event;                                             // what is drawn under a pointer at rest may change
    if (!values || !spec.read) return;
    const { row, column, i } = under(event), distinct = images.filter((image, k) => !images.slice(0, k).some((o) => o.source === image.source));
    const parts = distinct.map((image) => `${image.name} ${short(physical(image, i))} ${image.unit}`);
    if (modes.includes("difference")) {
      const error = short(physical(images[1], i) - physical(images[0], i));
      parts.push(`difference ${error > 0 ? "+" : ""}${error} ${spec.unit}`);
    }
    reading.textContent = `row ${row}, column ${column}: ${parts.join(" · ")}`;
  }

  function zoomTo(zoom, { row, column, x, y }) {                 // keeps the value under the pointer where it is
    change({ zoom, x: column - Math.floor(inPane(x) / zoom), y: row - Math.floor(y / zoom) });
  }
  const nextZoom = (by) => ZOOMS[clamp(ZOOMS.indexOf(state.zoom) + by, 0, ZOOMS.length - 1)];
  const centre = () => at(plane().columns >> 1, plane().rows >> 1);

  let drag;
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    const what = event.button === 2 ? "window" : state.mode === "wipe" && !event.shiftKey ? "wipe" : "pan";
    drag = { what, from: { ...state }, place: under(event), event };
    follow(event);
    event.preventDefault();
  });
  function follow(event) {
    if (!drag) return read(event);
    const { from, what, place } = drag, here = under(event), box = canvas.getBoundingClientRect();
    const by = (one, other) => Math.round((one - other) / state.zoom), step = range[2] * Math.max(1, Math.round(from.width / range[2] / 200));
    if (what === "wipe") change({ position: Math.round(100 * clamp((event.clientX - box.left) / box.width, 0, 1)) }, false);
    else if (what === "pan") change({ x: from.x - by(here.x, place.x), y: from.y - by(here.y, place.y) }, false);
    else if (windowed.length) {
      const width = from.width + Math.round(event.clientX - drag.event.clientX) * step;
      const level = from.level - Math.round(event.clientY - drag.event.clientY) * step;
      change({ width: clamp(width, range[2], 1.25 * (range[1] - range[0])), level: clamp(level, range[0], range[1]) }, false);
    }
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
    if (event.ctrlKey || event.shiftKey) zoomTo(nextZoom(-Math.sign(event.deltaY || event.deltaX)), under(event));
    else change({ slice: state.slice + Math.sign(event.deltaY) });
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const presets = Object.keys(windows), moved = (by) => clamp(state.position + by * (event.shiftKey ? 10 : 1), 0, 100);
    const action = {
      ArrowLeft: () => change({ position: moved(-1) }), ArrowRight: () => change({ position: moved(1) }),
      ArrowUp: () => change({ slice: state.slice + 1 }), ArrowDown: () => change({ slice: state.slice - 1 }),
      Home: () => change({ slice: 0 }), End: () => change({ slice: plane().slices - 1 }),
      "+": () => zoomTo(nextZoom(1), centre()), "-": () => zoomTo(nextZoom(-1), centre()), 0: () => change({ zoom: 1 }),
      w: () => useWindow(presets[(presets.indexOf(preset.select.value) + 1) % presets.length]),
      " ": () => { paused = true; swapped = !swapped; draw(); },
    }[event.key] ?? (modes[event.key - 1] && (() => change({ mode: modes[event.key - 1] })));
    if (!action) return;
    event.preventDefault(); event.stopPropagation();
    action();
  });

  let shownAt = 0;
  const timer = setInterval(() => {
    if (state.mode !== "flicker" || paused || !canvas.isConnected || performance.now() - shownAt < 1000 / rateAt(state.position)) return;
    shownAt = performance.now(); swapped = !swapped;
    draw();
  }, 50);
  const told = () => { Object.assign(state, model.get("state")); draw(); };
  model.on("change:state", told);
  const packed = model.get("data");
  unpack(new Uint8Array(packed.buffer, packed.byteOffset, packed.byteLength), spec.counts).then((arrays) => {
    values = arrays;
    draw();
    root.dataset.ready = "true";
  }, (error) => { reading.textContent = `The slices could not be read: ${error}`; });
  el.append(root);
  return () => { clearInterval(timer); model.off("change:state", told); };
}

// A table of cases, worst first, and a scatter of its first two numbers; either chooses the slice.
function cases({ columns, rows }, pick) {
  const number = (value) => value === null ? "–" : short(value), two = columns.length > 2;
  const buttons = rows.map(({ name, start }) => control("button", { type: "button" }, name));
  const lines = rows.map(({ numbers }, k) => make("tr", {}, make("td", {}, buttons[k]), ...numbers.map((value) => make("td", {}, number(value)))));
  const plot = make("svg", { viewBox: "0 0 200 150", role: "img", "aria-label": `${columns[2]} against ${columns[1]}, a dot per case` });
  const place = (axis) => {
    const all = rows.map(({ numbers }) => numbers[axis]).filter((value) => value !== null), low = Math.min(...all), high = Math.max(...all);
    return (value) => high > low ? (value - low) / (high - low) : 0.5;
  };
  const dots = two ? rows.map(({ name, numbers: [x, y] }) => x === null || y === null ? null : make("circle", {
    cx: 16 + 174 * place(0)(x), cy: 132 - 113 * place(1)(y), r: 5, "data-case": name })) : [];
  if (two) plot.append(make("text", { x: 190, y: 147, "text-anchor": "end" }, `${columns[1]} →`), make("text", { x: 2, y: 9 }, `↑ ${columns[2]}`));
  plot.append(...dots.filter(Boolean));
  [buttons, dots].forEach((nodes) => nodes.forEach((node, k) => node?.addEventListener("click", () => pick(rows[k].start))));
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const list = make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  const node = make("div", { class: "cases" }, make("div", { class: "scroll" }, list), ...two ? [plot] : []);
  const mark = (slice) => rows.forEach(({ start, count }, k) => {
    const here = slice >= start && slice < start + count;
    for (const one of [lines[k], dots[k]]) one?.classList.toggle("chosen", here);
    here ? buttons[k].setAttribute("aria-current", "true") : buttons[k].removeAttribute("aria-current");
  });
  return { node, mark };
}

export default { render };
