// What the course's pages do in a browser. Without it they can still be read.

// Browsers refuse to fetch from a folder what the excerpts of a search are made of.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

// A question of the quiz: a paragraph, a list of answers "a) ...", and the folded reason, which
// begins with the right one's letter in bold.
function ask(item, name) {
  const question = item.querySelector(":scope > p");
  const answers = item.querySelector(":scope > ul");
  const folded = item.querySelector(":scope > details");
  const right = folded.querySelector("strong").textContent.slice(0, 1);

  question.id = name;
  const fieldset = document.createElement("fieldset");
  fieldset.setAttribute("aria-labelledby", name);
  for (const answer of answers.children) {
    fieldset.append(choice(name, answer.firstElementChild ?? answer));
  }

  const button = document.createElement("button");
  button.textContent = "Check";
  const reply = document.createElement("div");
  reply.setAttribute("role", "status");

  const form = document.createElement("form");
  form.className = "quiz";
  form.append(fieldset, button, reply);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const correct = form.elements[name].value === right;
    const verdict = document.createElement("p");
    verdict.textContent = correct ? "Right." : `Not ${form.elements[name].value}).`;
    const reason = [...folded.querySelectorAll("p")].map((paragraph) => paragraph.cloneNode(true));
    reply.classList.toggle("right", correct);
    reply.replaceChildren(verdict, ...reason);
  });

  answers.replaceWith(form);
  folded.remove();
}

function choice(name, answer) {
  const radio = document.createElement("input");
  Object.assign(radio, { type: "radio", name, required: true });
  radio.value = answer.textContent.trim().slice(0, 1);

  const label = document.createElement("label");
  label.append(radio, " ", ...answer.childNodes);
  return label;
}

document.querySelectorAll("ol > li:has(> ul + details)").forEach((item, number) => {
  ask(item, `question-${number}`);
});

// A lesson can be read without its code: a button below the title, whose choice other lessons keep.
const title = document.querySelector("article h1");
if (title && document.querySelector("article .cell_input")) {
  const button = document.createElement("button");
  button.className = "code-switch";
  const hide = (hidden) => {
    document.body.classList.toggle("without-code", hidden);
    button.textContent = hidden ? "Show the code" : "Hide the code";
    localStorage.setItem("without-code", hidden ? "yes" : "");
  };
  button.addEventListener("click", () => {
    hide(!document.body.classList.contains("without-code"));
  });
  title.after(button);
  hide(localStorage.getItem("without-code") === "yes");
}
