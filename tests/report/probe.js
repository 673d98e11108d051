// Runs before the page's own script: collects what goes wrong, and once the page stands does what a reader would.
const wrong = [];
addEventListener("error", (event) => wrong.push(event.message ?? "error"));
addEventListener("unhandledrejection", (event) => wrong.push(`${event.reason}`));
document.addEventListener("securitypolicyviolation", (event) => wrong.push(`policy: ${event.violatedDirective}`));
for (const kind of ["error", "warn"]) console[kind] = (...said) => wrong.push(said.join(" "));
const at = (id) => document.getElementById(id);
const all = (selector, from = document) => [...from.querySelectorAll(selector)];
const texts = (selector, from) => all(selector, from).map((node) => node.textContent);
const set = (id, value, event = "change") => {
  at(id).value = value;
  at(id).dispatchEvent(new Event(event, { bubbles: true }));
};
const names = (kind) => texts(`tbody[data-kind="${kind}"] th`);
const turned = () => new Promise((done) => addEventListener("hashchange", () => setTimeout(done), { once: true }));
/** The ids on all pages, from the first. */
function paged() {
  const ids = all(".card").map((card) => card.dataset.id),
    pages = [ids.length];
  while (!at("pages").hidden && !at("next").disabled) {
    at("next").click();
    const more = all(".card").map((card) => card.dataset.id);
    pages.push(more.length);
    ids.push(...more);
  }
  return { ids, pages, count: at("examples-count").textContent };
}
addEventListener("load", async () => {
  const seen = {};
  try {
    /* STEPS */
    seen.hacked = window.hacked ?? null;
    seen.requests = performance
      .getEntriesByType("resource")
      .map(({ name }) => name)
      .filter((name) => !name.startsWith("data:"));
    seen.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  } catch (error) {
    wrong.push(`probe: ${error.stack}`);
  }
  seen.wrong = wrong;
  document.body.append(
    Object.assign(document.createElement("pre"), { id: "probe", textContent: JSON.stringify(seen) }),
  );
});
