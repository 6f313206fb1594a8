// A CycleGAN to play with: two clouds, their translations as arrows, the losses as curves.
//
// playground.html holds the page's elements; playground_page.py joins it with this script,
// numbers.mjs and the other two scripts of the playground.

const EDGE = 1.1; // the pictures show the plane from -EDGE to EDGE
const SHADES = 40; // pixels of the shade in a row
const FRAME_MS = 8; // time for training steps between two pictures
const SLOW_MS = 250; // time between two steps in slow motion
const STATUS_MS = 3000; // time between two states that are read out
const SETTLED = 1000; // steps without a change before a state counts
const CURVE_POINTS = 200; // at most, of each loss that is drawn

const WEIGHTS = [0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];
const RATES = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01];
const SLIDERS = { cycle: WEIGHTS, identity: WEIGHTS, rate: RATES };
const DRAWING = "my drawing";

const SHADE = [0, 158, 115];
const LOSSES = [
  { name: "adversarial", label: "adversarial", colour: "#d55e00" },
  { name: "cycle", label: "cycle", colour: "#0072b2" },
  { name: "identity", label: "identity", colour: "#009e73" },
  { name: "discriminator_mri", label: "discriminator of MR", colour: "#cc79a7" },
  { name: "discriminator_ct", label: "discriminator of CT", colour: "#999999" },
];
const VERDICTS = {
  ordered: "the arrows are in order both ways",
  mirrored: "the arrows are mirrored both ways",
  contrary: "the arrows are in order one way and mirrored the other way",
  collapsed: "the arrows miss most of a cloud",
  mixed: "the arrows are neither in order nor mirrored",
};

// What each task of the page asks for.
const TASKS = [
  ({ verdict }) => verdict === "mirrored",
  ({ verdict }) => verdict === "collapsed",
  ({ verdict }, { identity }) => identity === 0 && ["ordered", "mirrored"].includes(verdict),
];

class Playground {
  constructor(root) {
    this.root = root;
    this.settings = { cycle: 1, identity: 1, rate: 0.002, seed: 1 };
    this.clouds = { ct: shapedCloud("ct", "line"), mri: shapedCloud("mri", "S") };
    this.running = false;
    this.smallest = Infinity;
    this.listen();
    this.reset();
  }

  find(selector) {
    return this.root.querySelector(selector);
  }

  // Listening

  listen() {
    const press = (name, action) => this.find(`[name=${name}]`).addEventListener("click", action);
    press("run", () => this.toggle());
    press("step", () => this.stepOnce());
    press("reset", () => this.reset());
    press("seed", () => this.reset(this.settings.seed + 1));

    for (const [name, values] of Object.entries(SLIDERS)) {
      const slider = this.find(`[name=${name}]`);
      Object.assign(slider, { max: values.length - 1, value: values.indexOf(this.settings[name]) });
      slider.addEventListener("input", () => this.change(name, values[slider.value]));
      this.change(name, this.settings[name], 0);
    }
    for (const [modality, shape] of [["ct", "line"], ["mri", "S"]]) {
      const list = this.find(`select[name=${modality}]`);
      list.append(...[...Object.keys(SHAPES), DRAWING].map((name) => new Option(name, name)));
      list.value = shape;
      list.addEventListener("change", () => this.useShape(modality, list.value));
      this.listenToStrokes(modality);
    }
  }

  // A cloud is drawn into the picture whose arrows start there.
  listenToStrokes(modality) {
    const canvas = this.find(`[data-from=${modality}] canvas`);
    let stroke = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (!canvas.classList.contains("drawing")) return;
      canvas.setPointerCapture(event.pointerId);
      stroke = [placeUnder(event)];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!stroke) return;
      stroke.push(placeUnder(event));
      this.clouds[modality] = drawnCloud(stroke);
      this.reset();
    });
    canvas.addEventListener("lostpointercapture", () => (stroke = null));
  }

  useShape(modality, name) {
    const figure = this.find(`[data-from=${modality}]`);
    figure.querySelector("canvas").classList.toggle("drawing", name === DRAWING);
    if (name === DRAWING) {
      const title = figure.querySelector("b").textContent;
      this.find("[role=status]").textContent = `Draw one line into the picture ${title}.`;
      return;
    }
    this.clouds[modality] = shapedCloud(modality, name);
    this.reset();
  }

  // Training

  reset(seed = this.settings.seed) {
    this.settings.seed = seed;
    this.model = new PointCycleGAN(seed);
    this.losses = []; // of every step
    this.changedAt = 0;
    this.show();
    this.speak();
  }

  // A weight or rate acts from the next step on.
  change(name, value, step = this.model.steps) {
    this.settings[name] = value;
    this.changedAt = step;
    const slider = this.find(`[name=${name}]`);
    slider.setAttribute("aria-valuetext", value);
    slider.nextElementSibling.textContent = value;
  }

  step() {
    this.losses.push(this.model.step(this.clouds.ct, this.clouds.mri, this.settings));
  }

  stepOnce() {
    this.step();
    this.show();
    this.speak();
  }

  toggle() {
    this.running = !this.running;
    this.find("[name=run]").textContent = this.running ? "Pause" : "Run";
    this.speak();
    if (this.running) requestAnimationFrame((now) => this.frame(now));
  }

  // As many steps as there is time for, and a picture; in slow motion a step now and then.
  frame(now) {
    if (!this.running) return;
    requestAnimationFrame((next) => this.frame(next));
    const slow = this.find("[name=slow]").checked;
    if (slow && now - (this.steppedAt ?? 0) < SLOW_MS) return;

    this.steppedAt = now;
    const end = performance.now() + FRAME_MS;
    do this.step();
    while (!slow && performance.now() < end);
    this.show();
    if (now - this.spokenAt > STATUS_MS) this.speak();
  }

  // Showing

  show() {
    this.state = measure(this.model, this.clouds.ct, this.clouds.mri);
    this.drawTranslation("ct", "mri", this.model.D_mri);
    this.drawTranslation("mri", "ct", this.model.D_ct);
    this.drawCurves();
    this.markTasks();
  }

  // The state in words, which a screen reader reads out.
  speak() {
    const { steps } = this.model;
    this.spokenAt = performance.now();
    const state = steps ? VERDICTS[this.state.verdict] : "nothing is learned yet";
    this.find("[role=status]").textContent = `Seed ${this.settings.seed}, step ${steps}: ${state}.`;
  }

  // The third task keeps the smallest weight.
  markTasks() {
    if (this.model.steps - this.changedAt < SETTLED) return;
    const marks = this.root.querySelectorAll(".mark");
    TASKS.forEach((happens, k) => {
      if (!happens(this.state, this.settings)) return;
      if (k === 2) this.smallest = Math.min(this.smallest, this.settings.cycle);
      marks[k].textContent = k === 2 ? `✓ smallest so far: ${this.smallest}` : "✓";
    });
  }

  drawTranslation(from, to, discriminator) {
    const figure = this.find(`[data-from=${from}]`);
    const canvas = figure.querySelector("canvas");
    const { context, width, height, scale } = cleared(canvas);
    const { fake, order, reached } = this.state[to];
    context.drawImage(shade(discriminator), 0, 0, width, height);

    const onCanvas = (cloud, n) => [
      ((cloud[2 * n] / EDGE + 1) / 2) * width,
      ((1 - cloud[2 * n + 1] / EDGE) / 2) * height,
    ];
    for (let n = 0; n < POINTS; n++) {
      context.strokeStyle = context.fillStyle = positionColour(n);
      circle(context, onCanvas(this.clouds[to], n), 4 * scale).stroke();
      circle(context, onCanvas(this.clouds[from], n), 2 * scale).fill();
      arrow(context, onCanvas(this.clouds[from], n), onCanvas(fake, n), 6 * scale);
    }

    const caption = `order ${order.toFixed(2)}, ${Math.round(100 * reached)} % of rings reached`;
    figure.querySelector("figcaption").textContent = caption;
    canvas.setAttribute("aria-label", `${figure.querySelector("b").textContent}: ${caption}.`);
  }

  // On a logarithmic axis, from 0.01 to 3; of many steps, every second, fourth ... one.
  drawCurves() {
    const { context, width, height, scale } = cleared(this.find(".curves"));
    const stride = 2 ** Math.max(0, Math.ceil(Math.log2(this.losses.length / CURVE_POINTS)));
    const points = this.losses.filter((_, k) => k % stride === 0);
    const toY = (loss) => height * (1 - Math.log(clamp(loss, 0.01, 3) / 0.01) / Math.log(300));
    context.fillStyle = getComputedStyle(this.root).color;
    context.strokeStyle = "#8886";
    context.font = `${11 * scale}px system-ui, sans-serif`;
    for (const tick of [0.03, 0.1, 0.3, 1]) {
      line(context, [[0, toY(tick)], [width, toY(tick)]]);
      context.fillText(tick, 2 * scale, toY(tick) - 2 * scale);
    }

    const right = width / Math.max(1, points.length - 1);
    const entries = LOSSES.map(({ name, label, colour }) => {
      context.strokeStyle = colour;
      line(context, points.map((losses, k) => [k * right, toY(losses[name])]));
      const entry = document.createElement("span");
      entry.textContent = `${label} ${this.losses.at(-1)?.[name].toFixed(3) ?? "–"}`;
      entry.style.setProperty("--colour", colour);
      return entry;
    });
    this.find(".legend").replaceChildren(...entries);
  }
}

// The place in the plane under a pointer.
function placeUnder({ target, clientX, clientY }) {
  const box = target.getBoundingClientRect();
  const right = (2 * (clientX - box.left)) / box.width - 1;
  const down = (2 * (clientY - box.top)) / box.height - 1;
  return [EDGE * clamp(right, -1, 1), -EDGE * clamp(down, -1, 1)];
}

// An empty canvas with as many pixels as it has on the screen.
function cleared(canvas) {
  const scale = window.devicePixelRatio;
  const width = Math.max(1, Math.round(canvas.clientWidth * scale));
  const height = Math.max(1, Math.round(canvas.clientHeight * scale));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.lineWidth = 1.2 * scale;
  return { context, width, height, scale };
}

// A small picture of the plane, greener where the discriminator says "real".
function shade(discriminator) {
  const places = new Float64Array(2 * SHADES * SHADES);
  for (let k = 0; k < SHADES * SHADES; k++) {
    places[2 * k] = EDGE * ((2 * (k % SHADES) + 1) / SHADES - 1);
    places[2 * k + 1] = -EDGE * ((2 * Math.floor(k / SHADES) + 1) / SHADES - 1);
  }
  const picture = new ImageData(SHADES, SHADES);
  discriminator.answer(places).forEach((answer, k) => {
    picture.data.set([...SHADE, 128 * clamp(answer, 0, 1)], 4 * k);
  });
  const canvas = new OffscreenCanvas(SHADES, SHADES);
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// The colour of a position along a cloud: blue at its start, orange at its end.
function positionColour(n) {
  const mix = (start, end) => start + (n / (POINTS - 1)) * (end - start);
  return `rgb(${mix(0, 230)} ${mix(114, 159)} ${mix(220, 0)})`;
}

function circle(context, [x, y], radius) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  return context;
}

function line(context, places) {
  context.beginPath();
  for (const [x, y] of places) context.lineTo(x, y);
  context.stroke();
}

function arrow(context, [x, y], [endX, endY], head) {
  const angle = Math.atan2(endY - y, endX - x);
  const end = [endX, endY];
  const wing = (turn) => [endX - head * Math.cos(turn), endY - head * Math.sin(turn)];
  line(context, [[x, y], end, wing(angle + 0.45), end, wing(angle - 0.45)]);
}

const page = new Playground(document.querySelector("main"));

// The canvases have the page's width and its colours.
new ResizeObserver(() => page.show()).observe(page.root);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => page.show());
