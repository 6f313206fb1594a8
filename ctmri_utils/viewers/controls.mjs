// Elements of a viewer's page: buttons, sliders, selects, and the table of an error explorer.

// A function among the attributes is called on the event of that name.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// JupyterLab takes arrow keys for its cells, unless the focused element itself says otherwise.
function control(tag, attributes, ...children) {
  return make(tag, { ...attributes, "data-lm-suppress-shortcuts": "true" }, ...children);
}

// A slider or select with its name on the left and its value in words on the right.
class Field {
  constructor(tag, attributes, ...children) {
    this.input = control(tag, attributes, ...children);
    this.title = make("span");
    this.output = make("output");
    this.row = make("label", {}, this.title, this.input, this.output);
  }

  show(title, value, { text = "", hidden = false, range = {} } = {}) {
    Object.assign(this.input, range, { value });
    // A list says its own value.
    if (this.input.type === "range") this.input.setAttribute("aria-valuetext", text);
    this.title.textContent = title;
    this.output.textContent = text;
    this.row.hidden = hidden;
  }
}

function choice(names, pick) {
  const options = names.map((name) => make("option", {}, name));
  return new Field("select", { change: ({ target }) => pick(target.value) }, ...options);
}

// A table of cases, worst first, and a scatter of its first two numbers; either chooses the slice.
class Cases {
  constructor({ columns, rows }, pick) {
    this.columns = columns;
    this.rows = rows;
    this.pick = pick;
    const scroll = make("div", { class: "scroll" }, this.table());
    this.root = make("div", { class: "cases" }, scroll, this.scatter());
  }

  button({ name, start }, attributes, ...children) {
    const click = () => this.pick(start);
    return control(
      "button",
      { type: "button", "data-case": name, click, ...attributes },
      ...children,
    );
  }

  table() {
    const head = make("tr", {});
    head.append(...this.columns.map((name) => make("th", { scope: "col" }, name)));

    const body = make("tbody", {});
    for (const row of this.rows) {
      const line = make("tr", {}, make("td", {}, this.button(row, {}, row.name)));
      for (const value of row.numbers) {
        line.append(make("td", {}, Number.isFinite(value) ? short(value) : value));
      }
      body.append(line);
    }
    return make("table", {}, make("thead", {}, head), body);
  }

  // The dots are not for the keyboard: the table has the same cases.
  scatter() {
    const drawn = this.rows.filter(
      ({ numbers }) => numbers.length > 1 && numbers.slice(0, 2).every(Number.isFinite),
    );
    const across = percentages(drawn.map(({ numbers }) => numbers[0]));
    const up = percentages(drawn.map(({ numbers }) => numbers[1]));
    const dots = drawn.map((row, k) =>
      this.button(row, {
        class: "dot",
        title: row.name,
        tabindex: -1,
        style: `left: ${across[k]}%; bottom: ${up[k]}%`,
      }),
    );

    const vertical = make("span", {}, `↑ ${this.columns[2]}`);
    const horizontal = make("span", {}, `${this.columns[1]} →`);
    const attributes = { class: "plot", "aria-hidden": true };
    const plot = make("div", attributes, vertical, horizontal, ...dots);
    plot.hidden = !dots.length;
    return plot;
  }

  // Marks the case whose slice is shown.
  mark(name) {
    for (const button of this.root.querySelectorAll("button")) {
      button.setAttribute("aria-current", button.dataset.case === name);
    }
  }
}
