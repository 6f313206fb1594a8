// How the site's search ranks what it finds: first a name of the reference or a word of the
// glossary that is exactly what was typed, then lessons, then quiz and glossary, then the rest.
var Scorer = {
  score([page, , , , score]) {
    if (/^notebooks\/\d\d_/.test(page)) return score + 40;
    return page.startsWith("notebooks/") && !page.includes("assignments") ? score + 20 : score;
  },

  // The rest are Sphinx's own numbers, but for the first.
  objNameMatch: 100,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
