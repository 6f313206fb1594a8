// Pointer, wheel and keys on a viewer's canvas.

const ZOOMS = [1, 2, 3, 4, 6, 8];
const HELP =
  "On the picture: ← → position, ↑ ↓ slice, 1 to 7 way of comparing, + − 0 zoom, w next window, " +
  "space swaps while flickering. Mouse: drag the divider, or the zoomed picture (in a wipe with " +
  "Shift); with the right button level and width; after a click the wheel changes the slice, " +
  "with Ctrl the zoom; double click resets the zoom.";

class Input {
  constructor(viewer) {
    this.viewer = viewer;
    this.canvas = viewer.canvas;
    this.drag = null; // how a drag began: its kind, the state, the place and the event
    this.listen();
  }

  listen() {
    const { canvas, viewer } = this;
    canvas.addEventListener("pointerdown", (event) => this.startDrag(event));
    canvas.addEventListener("pointermove", (event) => this.follow(event));
    canvas.addEventListener("lostpointercapture", () => this.endDrag());
    canvas.addEventListener("pointerleave", () => viewer.stopReading());
    canvas.addEventListener("dblclick", () => viewer.change({ zoom: 1 }));
    canvas.addEventListener("wheel", (event) => this.turnWheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.pressKey(event));

    // The right button changes the window: no menu for it.
    canvas.addEventListener("contextmenu", (event) => {
      event.preventDefault();
      event.stopPropagation();
    });
  }

  // Dragging

  startDrag(event) {
    const { canvas, viewer } = this;
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);

    let kind = "pan";
    if (viewer.state.mode === "wipe" && !event.shiftKey) kind = "wipe";
    if (event.button === 2 && viewer.hasWindows()) kind = "window";
    this.drag = { kind, state: { ...viewer.state }, place: viewer.under(event), event };
    this.follow(event);
    event.preventDefault();
  }

  follow(event) {
    if (this.drag?.kind === "wipe") this.moveDivider(event);
    if (this.drag?.kind === "pan") this.pan(event);
    if (this.drag?.kind === "window") this.changeWindow(event);
    this.viewer.read(event);
  }

  endDrag() {
    this.drag = null;
    this.viewer.keepState();
  }

  moveDivider(event) {
    const { x } = this.viewer.under(event);
    const position = Math.round((100 * (x + 0.5)) / this.canvas.width);
    this.viewer.change({ position }, { keep: false });
  }

  pan(event) {
    const { state, place } = this.drag;
    const { x, y } = this.viewer.under(event);
    const right = Math.round((x - place.x) / this.viewer.state.zoom);
    const down = Math.round((y - place.y) / this.viewer.state.zoom);
    this.viewer.change({ x: state.x - right, y: state.y - down }, { keep: false });
  }

  // To the right is wider, upwards is a higher level; wide windows change faster.
  changeWindow(event) {
    const { state, event: start } = this.drag;
    const [min, max, step] = this.viewer.spec.range;
    const pace = step * Math.max(1, Math.round(state.width / step / 200));
    const right = Math.round(event.clientX - start.clientX) * pace;
    const down = Math.round(event.clientY - start.clientY) * pace;
    const width = clamp(state.width + right, step, 1.25 * (max - min));
    const level = clamp(state.level - down, min, max);
    this.viewer.change({ width, level }, { keep: false });
  }

  // Wheel and zoom

  turnWheel(event) {
    // Before a click the wheel scrolls the page, as everywhere.
    if (this.canvas.getRootNode().activeElement !== this.canvas) return;

    event.preventDefault();
    if (event.ctrlKey || event.shiftKey) {
      this.zoom(-Math.sign(event.deltaY || event.deltaX), this.viewer.under(event));
    } else {
      this.viewer.change({ slice: this.viewer.state.slice + Math.sign(event.deltaY) });
    }
  }

  // So many steps in or out; the value at that place stays where it is.
  zoom(steps, { row, column, inPane, y }) {
    const index = clamp(ZOOMS.indexOf(this.viewer.state.zoom) + steps, 0, ZOOMS.length - 1);
    const zoom = ZOOMS[index];
    const x = column - Math.floor(inPane / zoom);
    this.viewer.change({ zoom, x, y: row - Math.floor(y / zoom) });
  }

  zoomAtMiddle(steps) {
    const { columns, rows } = this.viewer.plane();
    this.zoom(steps, this.viewer.locator()(columns >> 1, rows >> 1));
  }

  // Keys

  pressKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (!this.act(event.key, event.shiftKey)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  // Does what a key stands for, and returns whether it stands for anything.
  act(key, shift) {
    const { viewer } = this;
    const { slice } = viewer.state;
    const percent = shift ? 10 : 1;
    const mode = viewer.spec.modes[key - 1];

    if (key === "ArrowLeft") this.movePosition(-percent);
    else if (key === "ArrowRight") this.movePosition(percent);
    else if (key === "ArrowUp") viewer.change({ slice: slice + 1 });
    else if (key === "ArrowDown") viewer.change({ slice: slice - 1 });
    else if (key === "Home") viewer.change({ slice: 0 });
    else if (key === "End") viewer.change({ slice: viewer.plane().slices - 1 });
    else if (key === "+") this.zoomAtMiddle(1);
    else if (key === "-") this.zoomAtMiddle(-1);
    else if (key === "0") viewer.change({ zoom: 1 });
    else if (key === "w") viewer.useNextWindow();
    else if (key === " ") viewer.swap();
    else if (mode) viewer.change({ mode });
    else return false;
    return true;
  }

  movePosition(percent) {
    this.viewer.change({ position: clamp(this.viewer.state.position + percent, 0, 100) });
  }
}
