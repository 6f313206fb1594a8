// Python's own numbers and sentences, which translation_page.py puts into the page.

const PYTHON = JSON.parse(document.getElementById("python").textContent);
const { constants: PY, sentences: SENTENCES } = PYTHON;

// A file that is not translated, and why.
class Refusal extends Error {}

// The sentence of Python's that begins so, its holes filled in order.
function say(beginning, ...values) {
  let next = 0;
  const fill = (_, spec) => formatted(values[next++], spec);
  return SENTENCES[beginning].replace(/\{(?::([^}]*))?\}/g, fill);
}

function refuse(beginning, ...values) {
  throw new Refusal(say(beginning, ...values));
}

// A number as Python's format writes it: .2f, .1%, .4g, g, or as it is.
function formatted(value, spec = "") {
  const digits = parseInt(spec.slice(1)) || 0;
  if (spec.endsWith("f")) return value.toFixed(digits);
  if (spec.endsWith("%")) return `${(100 * value).toFixed(digits)}%`;
  if (spec.endsWith("g")) return general(value, digits || 6);
  return String(value);
}

function general(value, digits) {
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const isShort = value === 0 || (exponent >= -4 && exponent < digits);
  if (isShort) return String(+value.toPrecision(digits));
  return `${+mantissa}e${exponent[0]}${exponent.slice(1).padStart(2, "0")}`;
}
